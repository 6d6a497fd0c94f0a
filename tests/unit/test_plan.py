"""The plan of runs: folders, what is finished, what is missing, and nothing loaded for it."""

import re
from pathlib import Path

import pytest
import torch

from conftest import toy_recipe
from idat_zoo import run
from idat_zoo.backbones import pair as pair_module
from idat_zoo.errors import InputError, UsageError
from idat_zoo.recipe import Recipe
from idat_zoo.registry import get_recipe
from idat_zoo.runs import inputs as inputs_module
from idat_zoo.runs.folder import run_folder
from idat_zoo.runs.inputs import Inputs
from idat_zoo.runs.plan import Planned, plan

CPU = torch.device("cpu")


def planned(out: Path, *asked: tuple[Recipe, int], data_dir: Path | None = None) -> list[Planned]:
    return plan(asked, out=out, device=CPU, inputs=Inputs(data_dir=data_dir))


def test_a_plan_says_where_each_run_goes_and_which_is_finished(tmp_path: Path) -> None:
    recipe = toy_recipe(epochs=1, precision="float32")
    result = run(recipe, device="cpu", out=tmp_path)
    first, second = planned(tmp_path, (recipe, 0), (recipe, 1))
    assert (first.finished, second.finished) == (True, False)
    assert first.folder == run_folder(tmp_path, recipe, 0)
    assert second.folder == first.folder.with_name("seed1")
    assert first.missing == second.missing == ()
    assert first.recipe.model_dump(exclude={"task"}) == result.recipe.model_dump(exclude={"task"})


def test_a_planned_recipe_is_complete(tmp_path: Path) -> None:
    (one,) = planned(tmp_path, (toy_recipe(precision="auto"), 0))
    assert one.recipe.precision == "float32"


def test_a_plan_lists_all_that_is_missing_and_loads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("something was loaded")

    monkeypatch.setattr(pair_module, "load_backbone", never)
    monkeypatch.setattr(inputs_module, "load_task", never)
    monkeypatch.setattr(inputs_module, "weights_path", never)
    (one,) = planned(tmp_path, (get_recipe("dtd", "lora"), 0), data_dir=tmp_path / "none")
    assert not one.finished
    assert [re.split("[';]", line)[0] for line in one.missing] == [
        "images of task ",
        "weights of ",
        "weights of ",
    ]
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_run_or_asked_for_twice_is_refused(tmp_path: Path) -> None:
    recipe = toy_recipe()
    with pytest.raises(UsageError, match="asked for twice"):
        planned(tmp_path, (recipe, 0), (recipe, 0))
    with pytest.raises(InputError, match="a seed is an int from 0; got -1"):
        planned(tmp_path, (recipe, -1))
    with pytest.raises(InputError, match="a run takes a Recipe; got 'lora'"):
        planned(tmp_path, ("lora", 0))  # type: ignore[arg-type]
