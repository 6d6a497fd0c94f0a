"""Every adapter family through the command line, as a person asks for it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from idat_zoo.adapters import ADAPTERS, build_adapter
from idat_zoo.cli import app
from idat_zoo.specs import AdapterSpec

ON_A_TINY_PAIR = ("--pair", "tiny_random", "epochs=1", "batch_size=500")
FITTED = {"oft": ["adapter.block_size=8"]}
"""What the widths of the tiny pair, 16 and 24, ask for."""


def stackable(family: str) -> bool:
    return build_adapter(AdapterSpec(name=family)).stackable


def test_all_families_but_one_share_a_pass() -> None:
    assert [family for family in ADAPTERS if not stackable(family)] == ["full"]
    assert len(ADAPTERS) == 38


@pytest.mark.system
@pytest.mark.parametrize("family", ADAPTERS)
def test_a_family_trains_the_mini_suite_in_one_pass(family: str, tmp_path: Path) -> None:
    stack = ["--stack", "6"] if stackable(family) else []
    words = ["train", "--task", "mini", "--adapter", family, *stack, *ON_A_TINY_PAIR]
    words += FITTED.get(family, [])
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)["results"]
    assert len({run["recipe"]["task"]["id"] for run in made}) == 6
    assert all(len(run["stack"]) == (6 if stack else 0) for run in made)
    assert all(run["parameters"]["adapter"] > 0 or family == "linear" for run in made)
