"""A user's own shelf: what it adds and replaces, and every fault of it."""

import re
from pathlib import Path

import pytest
from shelf_files import OWN, RELEASED, faults_of, rows, write_shelf

from idat_zoo.errors import RecipeError
from idat_zoo.registry import compose_recipe, find_recipe, get_recipe, load_registry


def test_a_users_shelf_adds_and_its_tables_are_laid_in_order(tmp_path: Path) -> None:
    registry = load_registry(write_shelf(tmp_path, OWN))
    own = compose_recipe(registry, "pet", "lora")
    assert (own.pair.name, own.lr, own.epochs, own.batch_size) == ("mine", 4e-3, 20, 32)
    assert own.adapter.options == {"rank": 2, "scale": 1.0, "dropout": 0.0}
    assert compose_recipe(registry, "pet", "linear").lr == 3e-3
    assert compose_recipe(registry, "dtd", "lora", pair="mine").lr == 2e-3
    assert rows(compose_recipe(registry, "dtd", "sequential", pair="mine")) == RELEASED["dtd"]
    assert registry.is_own("task", "pet")
    assert not registry.is_own("task", "dtd")


def test_a_users_task_takes_its_name_from_a_built_in_alias(tmp_path: Path) -> None:
    registry = load_registry(write_shelf(tmp_path, OWN))
    assert registry.find_task("pet").num_classes == 3
    assert registry.find_task("oxford_pet").id == "pets"


def test_a_users_table_replaces_the_built_in_one(tmp_path: Path) -> None:
    shelf = write_shelf(
        tmp_path,
        {"backbones.toml": '[vit_s]\ntimm = "vit_small_patch16_224"\nweights = "random"\n'},
    )
    recipe = get_recipe("dtd", "lora", shelf=shelf)
    assert recipe.pair.teacher is not None
    assert (recipe.pair.teacher.weights, recipe.pair.student.weights) == ("random", "augreg_in21k")


def test_every_fault_of_every_file_is_in_one_message(tmp_path: Path) -> None:
    faults = faults_of(
        tmp_path,
        {
            "backbones.toml": "[a]\nb = 1\n",
            "pairs.toml": '[mine]\nteacher = "vit_tiny"\nstudent = "vit_s"\n',
            "tasks.toml": (
                'stray = 1\n["a/b"]\n[mine]\nsuite = "vtab1k"\ngroup = "naturl"\nnum_classes = 1\n'
                'num_test = [9]\npair = "micr"\naliases = ["dtd", "natural", 1]\n'
            ),
            "recipes/tiny_random.toml": (
                'extends = "vit_ti_to_vit_s"\n[defaults]\nlrr = 1\nlr = -1\n'
                "[adapter.lora]\noptions = { rank = 0, alpha = 1 }\n[adapter.loro]\nlr = 1\n"
                '[override.x]\ntasks = ["dtdd"]\n[overide.x]\nlr = 1\n'
            ),
            "recipes/nopair.toml": "defaults = 3\n",
            "task.toml": "",
        },
    )
    expected = [
        "task.toml: unknown shelf file 'task.toml'. Did you mean 'tasks.toml'",
        "backbones.toml: [a]: unknown key 'b'.",
        "backbones.toml: [a]: timm: is missing",
        "backbones.toml: [a]: weights: is missing",
        "pairs.toml: [mine]: teacher: unknown backbone 'vit_tiny'. Did you mean 'vit_ti'",
        "tasks.toml: stray: expected a table [stray] (got 1)",
        "tasks.toml: [a/b]: a name has only letters",
        "tasks.toml: [mine]: group: must be 'natural', 'specialized' or 'structured'",
        "tasks.toml: [mine]: num_classes: must be greater than 1 (got 1)",
        "tasks.toml: [mine]: aliases.2: must be a text (got 1)",
        "tasks.toml: [mine]: pair: unknown pair 'micr'. Did you mean 'micro'",
        "tasks.toml: [mine]: aliases: 'dtd' is already a name of task 'dtd'",
        "tasks.toml: [mine]: aliases: 'natural' is the name of a group",
        "recipes/tiny_random.toml: [defaults]: unknown key 'lrr'. Did you mean 'lr'?",
        "recipes/tiny_random.toml: [defaults]: lr: must be greater than 0 (got -1)",
        "recipes/tiny_random.toml: [adapter.lora]: adapter 'lora': unknown key 'alpha'.",
        "recipes/tiny_random.toml: [adapter.lora]: adapter 'lora': rank: must be greater",
        "recipes/tiny_random.toml: [adapter.loro]: unknown adapter 'loro'. Did you mean 'lora'",
        "recipes/tiny_random.toml: [override.x]: unknown task 'dtdd'. Did you mean 'dtd'?",
        "recipes/tiny_random.toml: [override.x]: adapters: is missing",
        "recipes/tiny_random.toml: unknown table 'overide'. Did you mean 'override'?",
        "recipes/tiny_random.toml: extends: 'vit_ti_to_vit_s' extends another file itself",
        "recipes/nopair.toml: unknown pair 'nopair'.",
        "recipes/nopair.toml: defaults: expected a table [defaults] (got 3)",
    ]
    for start in expected:
        assert any(fault.startswith(f"{tmp_path}/{start}") for fault in faults), start
    assert len(faults) == len(expected)


def test_the_recipe_file_of_the_docs_is_laid_over_in_the_order_that_they_say(
    tmp_path: Path,
) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```toml\n# shelf/recipes/micro.toml\n(.*?)```", docs, re.DOTALL)
    registry = load_registry(write_shelf(tmp_path, {"recipes/micro.toml": text}))
    lora, dora, ssf, count = (
        find_recipe(registry, f"micro/{name}")
        for name in ("lora/digits", "dora/digits", "ssf/digits", "dora/count")
    )
    assert (lora.lr, lora.adapter.options["rank"], lora.drop_path) == (1e-2, 4, 0.1)
    assert (dora.lr, dora.drop_path) == (1e-2, 0.0)
    assert (ssf.lr, ssf.epochs, ssf.warmup_epochs) == (5e-3, 20, 2)
    assert (count.lr, count.drop_path) == (1e-3, 0.0)


def test_broken_toml_names_file_and_line_and_causes_no_further_faults(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, OWN | {"backbones.toml": '[mine]\ntimm = "a"\nweights =\n'})
    assert len(faults) == 1
    assert faults[0].startswith(f"{tmp_path / 'backbones.toml'}: broken TOML: ")
    assert "line 3" in faults[0]


@pytest.mark.parametrize(
    ("base", "message"),
    [("mine", "cannot extend itself"), ("mne", "unknown recipe file 'mne'. Did you mean 'mine'")],
)
def test_a_file_extends_another_that_exists(tmp_path: Path, base: str, message: str) -> None:
    (fault,) = faults_of(tmp_path, OWN | {"recipes/mine.toml": f'extends = "{base}"\n'})
    assert message in fault


def test_tables_that_do_not_fit_together_are_named_with_their_file(tmp_path: Path) -> None:
    shelf = write_shelf(tmp_path, {"recipes/micro.toml": "[defaults]\nepochs = 5\n"})
    with pytest.raises(RecipeError) as caught:
        get_recipe("digits", "lora", shelf=shelf)
    place = f"{tmp_path}/recipes/micro.toml: [defaults]"
    assert caught.value.faults == [f"{place}: warmup_epochs = 10 is more than epochs = 5"]


def test_a_shelf_must_be_a_folder_with_something_on_it(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not a folder"):
        load_registry(tmp_path / "absent")
    with pytest.raises(RecipeError, match="no shelf"):
        load_registry(tmp_path)
