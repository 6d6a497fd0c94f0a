"""The adapters that ship: the shelf, the files and what they reach agree."""

import hashlib
from functools import cache

import pytest

from idat_zoo import evaluate
from idat_zoo.checkpoint.builtin import builtin_names
from idat_zoo.checkpoint.opened import open_checkpoint
from idat_zoo.checkpoint.tensors import TENSORS_FILE
from idat_zoo.registry.shipped import Shipped, load_shipped
from idat_zoo.results import Result

SHIPPED = load_shipped()


@cache
def evaluated(name: str) -> Result:
    return evaluate(f"builtin:{name}", device="cpu")


def test_the_shelf_lists_what_ships_and_its_very_files() -> None:
    assert len(SHIPPED) == 6 * 3
    assert [own.name for own in sorted(SHIPPED, key=lambda own: own.name)] == builtin_names()
    for own in SHIPPED:
        opened = open_checkpoint(f"builtin:{own.name}")
        assert hashlib.sha256((opened.folder / TENSORS_FILE).read_bytes()).hexdigest() == own.sha256
        config = opened.config
        recipe = config.recipe
        assert (recipe.task.id, recipe.adapter.label) == (own.task, own.adapter)
        assert own.name == f"{own.task}-{own.adapter}"
        assert config.recipe_hash == own.recipe_hash


@pytest.mark.parametrize(
    "own",
    [pytest.param(p, id=p.name, marks=() if i == 0 else pytest.mark.system)
     for i, p in enumerate(SHIPPED)],
)  # fmt: skip
def test_what_ships_reaches_what_the_shelf_says(own: Shipped) -> None:
    result = evaluated(own.name)
    assert result.top1 == pytest.approx(own.top1, abs=1e-12)
    assert result.parameters.adapter == own.trained


@pytest.mark.slow
def test_the_adapter_of_the_readme_reaches_93_per_cent_in_at_most_30_epochs() -> None:
    result = evaluated("digits-lora")
    assert result.top1 >= 0.93
    assert result.recipe.epochs <= 30
    assert result.baselines.keys() >= {"chance", "logistic_regression", "nearest_neighbour"}
