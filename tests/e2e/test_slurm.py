"""A study on a real Slurm of one node: the same bytes as here, also when jobs are ended."""

import pytest
from slurm_node import PARTITION, Node

pytestmark = pytest.mark.system


def test_slurm_runs_a_command(slurm: Node) -> None:
    assert slurm.call("srun", "--partition", PARTITION, "echo", "here") == "here"
    assert slurm.jobs() == []
