"""The adapters that ship: the shelf, the files and what they reach agree."""

import hashlib
from functools import cache

import pytest

from idat_zoo import evaluate
from idat_zoo.checkpoint import TENSORS_FILE, builtin_names, find_folder, read_config
from idat_zoo.registry.published import Published, load_published
from idat_zoo.results import Result

PUBLISHED = load_published()


@cache
def evaluated(name: str) -> Result:
    return evaluate(f"builtin:{name}", device="cpu")


def test_the_shelf_lists_what_ships_and_its_very_files() -> None:
    assert len(PUBLISHED) == 6 * 3
    assert [own.name for own in sorted(PUBLISHED, key=lambda own: own.name)] == builtin_names()
    for own in PUBLISHED:
        folder = find_folder(f"builtin:{own.name}")
        assert hashlib.sha256((folder / TENSORS_FILE).read_bytes()).hexdigest() == own.sha256
        config = read_config(folder)
        recipe = config.recipe
        assert (recipe.task.id, recipe.adapter.label) == (own.task, own.adapter)
        assert own.name == f"{own.task}-{own.adapter}"
        assert config.recipe_hash == own.recipe_hash


@pytest.mark.parametrize(
    "own",
    [pytest.param(p, id=p.name, marks=() if i == 0 else pytest.mark.system)
     for i, p in enumerate(PUBLISHED)],
)  # fmt: skip
def test_what_ships_reaches_what_the_shelf_says(own: Published) -> None:
    result = evaluated(own.name)
    assert result.top1 == pytest.approx(own.top1, abs=1e-12)
    assert result.parameters.adapter == own.trained


@pytest.mark.slow
def test_the_adapter_of_the_readme_reaches_93_per_cent_in_at_most_30_epochs() -> None:
    result = evaluated("digits-lora")
    assert result.top1 >= 0.93
    assert result.recipe.epochs <= 30
    assert result.baselines.keys() >= {"chance", "logistic_regression", "nearest_neighbour"}
