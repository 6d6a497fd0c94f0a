"""Named groups of adapter families in a shelf's recipes."""

from pathlib import Path

import pytest
from shelf_files import faults_of, write_shelf

from idat_zoo.registry import find_recipe, load_registry


def test_a_group_of_families_is_set_task_by_task_between_task_and_override(tmp_path: Path) -> None:
    text = (
        '[families]\nslim = ["lora", "ssf"]\n[task.dtd]\nlr = 1e-2\nepochs = 30\n'
        "[task.dtd.slim]\nlr = 2e-2\ndrop_path = 0.0\n[task.svhn.slim]\nlr = 3e-2\n"
        '[override.last]\nadapters = ["ssf"]\ntasks = ["dtd"]\nlr = 4e-2\n'
    )
    registry = load_registry(write_shelf(tmp_path, {"recipes/micro.toml": text}))

    def fields(name: str) -> tuple[float, float, int]:
        recipe = find_recipe(registry, f"micro/{name}")
        return recipe.lr, recipe.drop_path, recipe.epochs

    assert fields("lora/dtd") == (2e-2, 0.0, 30)
    assert fields("ssf/dtd") == (4e-2, 0.0, 30)
    assert fields("bitfit/dtd") == (1e-2, 0.1, 30)
    assert fields("lora/svhn") == (3e-2, 0.1, 100)
    assert fields("bitfit/svhn") == (1e-3, 0.1, 100)
    assert [rule.table for rule in registry.rules["micro"]] == [
        "task.dtd",
        "task.dtd.slim",
        "task.svhn.slim",
        "override.last",
    ]


def test_a_group_of_families_sets_adapter_options_of_all_its_families(tmp_path: Path) -> None:
    text = '[families]\nslim = ["lora", "dora"]\n[task.dtd.slim]\noptions = {rank = 3}\n'
    registry = load_registry(write_shelf(tmp_path, {"recipes/micro.toml": text}))
    for family in ("lora", "dora"):
        assert find_recipe(registry, f"micro/{family}/dtd").adapter.options["rank"] == 3
    wrong = '[families]\nslim = ["lora", "bitfit"]\n[task.dtd.slim]\noptions = {rank = 3}\n'
    (fault,) = faults_of(tmp_path, {"recipes/micro.toml": wrong})
    assert "recipes/micro.toml: [task.dtd.slim]: adapter 'bitfit': unknown key 'rank'" in fault


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[families]\nslim = ["lroa"]\n',
            "[families]: slim: unknown adapter 'lroa'. Did you mean 'l",
        ),
        (
            "[families]\nslim = []\n",
            "[families]: slim: expected a list of adapter families (got [])",
        ),
        (
            '[families]\nslim = "lora"\n',
            "[families]: slim: expected a list of adapter families (got",
        ),
        ('[families]\nlr = ["lora"]\n', "[families]: lr: a group cannot have the name of a recipe"),
        ("families = 3\n", "families: expected a table [families] (got 3)"),
        (
            '[families]\nslim = ["lora"]\n[task.dtd.slmi]\nlr = 1\n',
            "[task.dtd.slmi]: unknown group of families 'slmi'. Did you mean 'slim'?",
        ),
        (
            '[families]\nslim = ["lora"]\n[task.dtdd.slim]\nlr = 1\n',
            "[task.dtdd.slim]: unknown task 'dtdd'. Did you mean 'dtd'?",
        ),
        (
            '[families]\nslim = ["lora"]\n[task.dtd.slim]\nlrr = 1\n',
            "[task.dtd.slim]: unknown key 'lrr'. Did you mean 'lr'?",
        ),
        (
            '[families]\nslim = ["lora"]\n[task.dtd]\nslim = 1\n',
            "task.dtd.slim: expected a table [task.dtd.slim] (got 1)",
        ),
        ("[familes]\n", "unknown table 'familes'. Did you mean 'families'"),
    ],
)
def test_a_wrong_group_of_families_is_one_fault(tmp_path: Path, text: str, said: str) -> None:
    (fault,) = faults_of(tmp_path, {"recipes/micro.toml": text})
    assert fault.startswith(f"{tmp_path}/recipes/micro.toml: {said}")
