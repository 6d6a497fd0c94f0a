"""The built-in shelves: their tasks, recipes and parameters."""

import hashlib
from pathlib import Path

import pytest
from shelf_files import RELEASED, faults_of, rows, write_shelf

from idat_zoo.errors import UnknownNameError
from idat_zoo.recipe import Task
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.registry import (
    Registry,
    compose_recipe,
    find_recipe,
    load_registry,
    recipe_id,
    resolve_tasks,
    unlike_recipe_ids,
)
from idat_zoo.registry.parameters import load_parameters
from idat_zoo.registry.registry import BUILTIN


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def test_released_rows_apply_to_idats_own_adapters_and_to_no_other(registry: Registry) -> None:
    for adapter in registry.adapters:
        for task, row in RELEASED.items():
            recipe = compose_recipe(registry, task, adapter)
            own = adapter in {"sequential", "shared_parallel", "idat_adaptformer"}
            assert rows(recipe) == (row if own else (1e-3, 1e-4, 0.1)), (task, adapter)


def test_the_hashes_of_idats_own_recipes_stay(registry: Registry) -> None:
    # Taken when each of the 19 tables named the three families itself.
    hashes = [
        recipe_hash(find_recipe(registry, f"vit_s_to_vit_b/{family}/{task}"))
        for family in ("sequential", "shared_parallel", "idat_adaptformer")
        for task in RELEASED
    ]
    digest = hashlib.sha256("".join(hashes).encode()).hexdigest()
    assert digest == "81abfd29cd81138f1f1611e9d13e839007ed386da5defc9a9c6048bb2b134c68"


def test_pairs_of_the_same_kind_share_the_released_rows(registry: Registry) -> None:
    for pair in ("vit_s_to_vit_b_orig", "vit_ti_to_vit_s", "vit_ti_to_vit_b", "vit_b_to_vit_l"):
        assert (
            rows(find_recipe(registry, f"{pair}/sequential/clevr_dist")) == RELEASED["clevr_dist"]
        )


def test_vtab1k_has_19_tasks_in_three_groups_with_940_classes(registry: Registry) -> None:
    tasks = resolve_tasks("vtab1k", registry)
    assert [task.id for task in tasks] == list(RELEASED)
    assert sum(task.num_classes for task in tasks) == 940
    assert [len(resolve_tasks(group, registry)) for group in ("natural", "specialized")] == [7, 4]
    assert registry.tasks["caltech101"].num_test == (6084, 6085)


@pytest.mark.parametrize(
    ("suite", "first", "count"),
    [
        ("mini", "digits", 6),
        ("real", "fashion", 1),
        ("fgvc", "fgvc_cub", 5),
        ("fewshot", "fewshot_food101_1", 25),
    ],
)
def test_each_suite_stands_for_its_tasks(
    registry: Registry, suite: str, first: str, count: int
) -> None:
    tasks = resolve_tasks(suite, registry)
    assert {task.suite for task in tasks} == {suite}
    assert (tasks[0].id, len(tasks)) == (first, count)
    assert resolve_tasks(f"{first},{suite}", registry) == tasks


def test_groups_are_those_of_vtab1k_though_mini_has_the_same(registry: Registry) -> None:
    assert {task.suite for task in resolve_tasks("natural,structured", registry)} == {"vtab1k"}


def test_a_table_with_several_shots_is_as_many_tasks(registry: Registry) -> None:
    one, four = (registry.find_task(f"fewshot-pets-{shots}") for shots in (1, 4))
    assert (one.shots, four.shots) == (1, 4)
    assert four == one.model_copy(update={"id": "fewshot_pets_4", "shots": 4})
    with pytest.raises(UnknownNameError, match="'fewshot_pets'\\. Did you mean 'fewshot_pets_"):
        registry.find_task("fewshot_pets")


def test_a_users_table_may_have_several_shots_too(tmp_path: Path) -> None:
    table = '[own]\nsuite = "fewshot"\nnum_classes = 3\nnum_test = []\npair = "micro"\n'
    registry = load_registry(write_shelf(tmp_path, {"tasks.toml": f"{table}shots = [1, 3]\n"}))
    assert [registry.tasks[name].shots for name in ("own_1", "own_3")] == [1, 3]
    assert registry.is_own("task", "own_3")
    (fault,) = faults_of(tmp_path, {"tasks.toml": f"{table}shots = [1, -3]\n"})
    assert "[own_-3]: shots: must be greater than or equal to 0" in fault


def test_a_task_may_be_added_to_the_shelves_at_hand(registry: Registry) -> None:
    own = Task(id="folder-0123abcd", suite="folder", num_classes=3, num_test=())
    more = registry.with_task(own, pair="tiny_random")
    recipe = compose_recipe(more, own.id, "lora")
    assert (recipe.task, recipe.pair.name) == (own, "tiny_random")
    assert not registry.has_task(own.id)
    other = own.model_copy(update={"num_classes": 4})
    assert more.with_task(other, pair="micro").find_task(own.id).num_classes == 4


@pytest.mark.parametrize("name", ["natural", "mini", "vtab1k", "fewshot", "folder"])
def test_a_task_cannot_have_the_name_of_a_group_or_suite(tmp_path: Path, name: str) -> None:
    table = 'suite = "vtab1k"\nnum_classes = 3\nnum_test = [9]\npair = "micro"\n'
    said = f"'{name}' is the name of a group or suite"
    (fault,) = faults_of(tmp_path / "a", {"tasks.toml": f"[{name}]\n{table}"})
    assert fault.endswith(f"[{name}]: {said}")
    text = f'[own]\n{table}aliases = ["{name}"]\n'
    (fault,) = faults_of(tmp_path / "b", {"tasks.toml": text})
    assert fault.endswith(f"[own]: aliases: {said}")


@pytest.mark.slow
def test_every_recipe_of_the_shelf_is_valid(registry: Registry) -> None:
    ids = unlike_recipe_ids(registry)
    assert {name.split("/")[0] for name in ids} == set(registry.pairs)
    assert {name.split("/")[1] for name in ids} == set(registry.adapters)
    assert [recipe_id(find_recipe(registry, name)) for name in ids] == ids
    of_tasks = [f"{registry.default_pairs[task]}/lora/{task}" for task in registry.tasks]
    assert [recipe_id(find_recipe(registry, name)) for name in of_tasks] == of_tasks


def test_every_file_names_its_source_on_the_first_line() -> None:
    for file in (*BUILTIN.glob("*.toml"), *BUILTIN.glob("recipes/*.toml")):
        assert file.read_text(encoding="utf-8").startswith("# Source: "), file


def test_default_pairs_are_micro_for_built_in_tasks_and_the_papers_for_vtab(
    registry: Registry,
) -> None:
    for task in registry.tasks.values():
        expected = "micro" if task.suite in ("mini", "real") else "vit_s_to_vit_b"
        assert registry.default_pairs[task.id] == expected


def test_each_family_counts_parameters_for_every_pair_that_can_carry_it(
    registry: Registry,
) -> None:
    counts = load_parameters()
    assert list(counts) == list(registry.adapters)
    assert all(
        {"micro", "vit_s_to_vit_b", "vit_b_to_vit_l"} <= own.keys() for own in counts.values()
    )
    without = {pair for pair in registry.pairs if "convnext" in pair}
    assert set(registry.pairs) - counts["shared_parallel"].keys() == without
    assert counts["sequential"].keys() == set(registry.pairs)
    assert load_parameters()["sequential"]["vit_s_to_vit_b"].student == 82_992
    assert load_parameters()["sequential"]["vit_s_to_vit_b"].teacher == 41_520
