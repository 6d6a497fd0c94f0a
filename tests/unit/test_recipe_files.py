"""Recipe files: a recipe survives TOML exactly, and every fault names the file."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shelf_files import faults_of

from idat_zoo.errors import RecipeError
from idat_zoo.recipe import Recipe
from idat_zoo.recipe_toml import dump_recipe, parse_recipe
from idat_zoo.registry import Registry, get_recipe, load_registry, recipe_from_file
from idat_zoo.values import MOST_NUMBER


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def test_a_recipe_file_gives_the_recipe_back_and_takes_words(
    tmp_path: Path, registry: Registry
) -> None:
    recipe = get_recipe("cifar", "sequential", overrides=["teacher_adapter=lora"])
    file = tmp_path / "recipe.toml"
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    assert recipe_from_file(file, registry=registry) == recipe
    changed = recipe_from_file(file, registry=registry, overrides=["adapter.bottleneck=8"])
    assert changed.adapter.options["bottleneck"] == 8
    assert changed.teacher_adapter == recipe.teacher_adapter
    alone = recipe_from_file(file, registry=registry, teacher="none")
    assert alone.teacher_adapter is None
    file.write_text(dump_recipe(alone), encoding="utf-8")
    again = recipe_from_file(file, registry=registry, teacher="vit_s")
    assert (again.distillation.name, again.teacher_adapter) == ("mse", recipe.adapter)


@pytest.mark.parametrize(
    ("pair", "epochs", "warmup"),
    [("micro", 1, 0), ("tiny_random", 5, 2), ("vit_s_to_vit_b", 1, 0)],
)
def test_fewer_epochs_in_a_file_shorten_the_warmup_as_a_word_does(
    pair: str, epochs: int, warmup: int, tmp_path: Path, registry: Registry
) -> None:
    file = tmp_path / "mine.toml"
    text = dump_recipe(get_recipe("digits", "lora", pair=pair))
    file.write_text(re.sub(r"(?m)^epochs = \d+$", f"epochs = {epochs}", text))
    recipe = recipe_from_file(file, registry=registry)
    assert recipe == get_recipe("digits", "lora", pair=pair, overrides=[f"epochs={epochs}"])
    assert recipe.warmup_epochs == warmup
    long = get_recipe("digits", "lora", pair=pair, overrides=["epochs=50", "warmup_epochs=20"])
    file.write_text(dump_recipe(long))
    assert recipe_from_file(file, registry=registry) == long
    file.write_text(dump_recipe(long).replace("epochs = 50", "epochs = 19"))
    with pytest.raises(RecipeError, match="warmup_epochs = 20 is more than epochs = 19"):
        recipe_from_file(file, registry=registry)


def test_no_shelf_has_a_task_of_the_images_of_data_dir(tmp_path: Path) -> None:
    table = 'suite = "folder"\nnum_classes = 3\nnum_test = []\npair = "micro"\n'
    (fault,) = faults_of(tmp_path, {"tasks.toml": f"[flowers]\n{table}"})
    assert "[flowers]: suite: 'folder' is of the images of --data-dir" in fault


def test_another_distillation_term_starts_afresh(tmp_path: Path, registry: Registry) -> None:
    recipe = get_recipe("dtd", "lora", overrides=["distillation=kl", "temperature=2"])
    file = tmp_path / "recipe.toml"
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    changed = recipe_from_file(file, registry=registry, overrides=["distillation=mse"])
    assert (changed.distillation.name, changed.distillation.options) == ("mse", {})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "lora"', 'name = "lorra"', "unknown adapter 'lorra'. Did you mean 'lora'"),
        ("rank = 8", "rank = 0", "adapter 'lora': rank: must be greater"),
        ("lr = 0.001", "lr = ", "broken TOML"),
        ("lr = 0.001", 'lr = "0.001"', "lr: must be a number"),
    ],
)
def test_faults_of_a_recipe_file_name_it(
    tmp_path: Path, registry: Registry, old: str, new: str, message: str
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(dump_recipe(get_recipe("dtd", "lora")).replace(old, new), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        recipe_from_file(file, registry=registry)
    assert caught.value.faults[0].startswith(f"{file}: {message}")


def test_a_recipe_file_that_is_missing_or_no_text_is_named(
    tmp_path: Path, registry: Registry
) -> None:
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        recipe_from_file(tmp_path / "absent.toml", registry=registry)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="is not UTF-8 text"):
        recipe_from_file(tmp_path / "binary.toml", registry=registry)


texts = st.text(max_size=20)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,19}", fullmatch=True)
positive = st.floats(min_value=1e-300, max_value=MOST_NUMBER)
others = st.booleans() | st.floats(-MOST_NUMBER, MOST_NUMBER) | texts
scalars = others | st.integers()
bounded = others | st.integers(max_value=16_384)
backbones = st.fixed_dictionaries(
    {
        "name": texts,
        "timm": st.from_regex(r"[a-z0-9_]{1,20}", fullmatch=True),
        "weights": names | names.map(lambda name: f"builtin:{name}"),
        "img_size": st.integers(1, 1000),
        "args": st.dictionaries(texts, bounded, max_size=3),
        "mean": st.tuples(*[st.floats(-9, 9)] * 3),
        "std": st.just((0.5, 0.5, 0.5)),
        "licence": texts,
    }
)
choices = st.fixed_dictionaries(
    {"name": names, "options": st.dictionaries(texts, bounded, max_size=3)}
)


@st.composite
def recipe_fields(draw: st.DrawFn) -> dict[str, Any]:
    """Tables only: what checks a model's types draws numbers that no strategy may touch."""
    alone = draw(st.booleans())
    candidates = draw(
        st.dictionaries(texts, st.lists(scalars, min_size=1, max_size=3).map(tuple), max_size=2)
    )
    return {
        "pair": {
            "name": draw(names),
            "student": draw(backbones),
            "teacher": None if alone else draw(backbones),
        },
        "task": {
            "id": draw(names),
            "suite": "vtab1k",
            "group": "natural",
            "num_classes": draw(st.integers(2, 1000)),
            "num_test": draw(st.lists(st.integers()).map(tuple)),
            "source": draw(texts),
        },
        "adapter": draw(choices),
        "teacher_adapter": None if alone else draw(choices),
        "distillation": "none" if alone else "mse",
        "lr": draw(positive),
        "drop_path": draw(st.floats(0, 1, exclude_max=True)),
        "candidates": candidates,
        "selection": "val" if candidates else "none",
    }


@settings(derandomize=True, deadline=None)
@given(recipe_fields())
def test_a_recipe_survives_toml_exactly(fields: dict[str, Any]) -> None:
    recipe = Recipe(**fields)
    again = parse_recipe(dump_recipe(recipe), where="recipe")
    assert again == recipe
    assert repr(again) == repr(recipe)
