"""Every law of `tests/laws.py`, for every family."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

import laws
import pytest
from families import all_facts, facts_of
from laws import Cell
from zoo import FOLDER

from idat_zoo.adapters import ADAPTERS

each_family = pytest.mark.parametrize("family", ADAPTERS)
COMPILED = ("sequential", "lora", "linear")
"""Compiled with inductor in the long tests, where all are with `aot_eager`."""


def test_facts_are_known_of_every_family_and_of_no_other() -> None:
    assert set(all_facts()) == set(ADAPTERS), "each has `Facts` in a module of tests/families"


def test_every_golden_file_has_a_family() -> None:
    used = {case.file for family in ADAPTERS for case in facts_of(family).golden}
    assert used <= {path.stem for path in FOLDER.glob("*.safetensors")}


@each_family
def test_it_is_the_authors(family: str) -> None:
    laws.is_the_authors(family)


@each_family
def test_it_merges_as_the_authors(family: str) -> None:
    laws.merges_as_the_authors(family)


@each_family
def test_it_drops_where_the_authors_do(family: str) -> None:
    laws.drops_where_the_authors_do(family)


@each_family
def test_it_counts_as_the_formula_says(family: str) -> None:
    laws.counts_as_the_formula_says(family)


@each_family
def test_it_starts_as_the_authors_do(family: str) -> None:
    laws.starts_as_the_authors_do(family)


@each_family
def test_it_starts_as_the_frozen_network_where_it_says_so(family: str) -> None:
    laws.starts_as_the_frozen_network_where_it_says_so(family)


@each_family
def test_it_is_drawn_from_its_generator_alone(family: str) -> None:
    laws.is_drawn_from_its_generator_alone(family)


@each_family
def test_it_learns_with_all_its_tensors_and_changes_no_frozen_bit(family: str) -> None:
    laws.learns_all_and_no_frozen_bit(Cell(family))


@each_family
def test_every_tensor_that_learns_has_a_gradient(family: str) -> None:
    laws.is_alive(Cell(family))


@each_family
def test_it_is_read_as_it_was_written(family: str) -> None:
    laws.is_read_as_it_was_written(Cell(family))


@each_family
def test_it_merges_to_the_same_logits(family: str) -> None:
    laws.merges_to_the_same_logits(Cell(family))


@each_family
def test_two_tasks_in_one_pass_learn_what_they_would_alone(family: str) -> None:
    laws.stacks_as_alone(Cell(family))


@each_family
def test_a_mixed_batch_gives_each_its_own_logits(family: str) -> None:
    laws.mixes_as_alone(Cell(family))


@each_family
@pytest.mark.parametrize("drop_path", [0.0, 0.3])
def test_a_walk_from_its_prefix_on_has_the_bits_of_a_whole_one(
    family: str, drop_path: float
) -> None:
    laws.walks_on_from_its_prefix(Cell(family), drop_path=drop_path)


@each_family
def test_it_is_random_in_training_alone(family: str) -> None:
    laws.is_random_in_training_alone(Cell(family))


@each_family
def test_an_images_logits_do_not_depend_on_the_others(family: str) -> None:
    laws.keeps_images_apart(Cell(family))


@each_family
def test_it_bears_gradient_checkpointing(family: str) -> None:
    laws.bears_gradient_checkpointing(Cell(family))


@each_family
def test_it_bears_bf16(family: str) -> None:
    laws.bears_bf16(Cell(family))


COMPILE = """
import sys
import laws

for family in sys.argv[2:]:
    laws.compiles(laws.Cell(family), sys.argv[1])
    print(family, flush=True)
"""


def compile_apart(backend: str, families: Sequence[str]) -> None:
    """In a process of its own: the annotations that are checked here are in dynamo's way."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, backend, *families],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert not done.returncode, f"after {done.stdout.split()}: {done.stderr}"
    assert done.stdout.split() == list(families)


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(f, marks=pytest.mark.slow if f == "lora" else pytest.mark.system)
        for f in ADAPTERS
    ],
)
def test_it_compiles(family: str) -> None:
    compile_apart("aot_eager", [family])


@pytest.mark.system
@pytest.mark.skipif(shutil.which("c++") is None, reason="inductor needs a C++ compiler")
def test_they_compile_with_inductor() -> None:
    compile_apart("inductor", COMPILED)
