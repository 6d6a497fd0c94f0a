"""The shelves, recipes made from them, and every way in which either can be wrong."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fakes
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from idat_zoo.errors import RecipeError, UnknownNameError, UsageError
from idat_zoo.recipe import Backbone, Recipe, Task
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.recipe_toml import dump_recipe, parse_recipe
from idat_zoo.registry import (
    Registry,
    compose_recipe,
    differences,
    find_recipe,
    get_recipe,
    load_registry,
    recipe_from_file,
    recipe_id,
    resolve_tasks,
    unlike_recipe_ids,
)
from idat_zoo.registry.parameters import load_parameters
from idat_zoo.registry.registry import BUILTIN
from idat_zoo.specs import AdapterSpec
from idat_zoo.values import MOST_NUMBER

RELEASED = {  # task: lr, weight decay, drop path; facts/vtab_and_peers.md 3.1
    "cifar100": (5e-3, 5e-5, 0.0),
    "caltech101": (1e-3, 5e-2, 0.1),
    "dtd": (5e-3, 5e-5, 0.0),
    "flowers102": (5e-3, 5e-5, 0.0),
    "pets": (5e-3, 5e-5, 0.0),
    "svhn": (1e-2, 5e-5, 0.0),
    "sun397": (5e-3, 5e-5, 0.0),
    "patch_camelyon": (5e-3, 5e-5, 0.0),
    "eurosat": (3e-3, 5e-2, 0.2),
    "resisc45": (2e-3, 5e-5, 0.1),
    "diabetic_retinopathy": (5e-3, 5e-5, 0.2),
    "clevr_count": (2e-3, 5e-2, 0.1),
    "clevr_dist": (5e-2, 5e-2, 0.1),
    "dmlab": (5e-3, 5e-5, 0.1),
    "kitti": (1e-2, 5e-5, 0.0),
    "dsprites_loc": (1e-2, 5e-5, 0.0),
    "dsprites_ori": (5e-3, 5e-5, 0.2),
    "smallnorb_azi": (2e-2, 5e-5, 0.1),
    "smallnorb_ele": (5e-3, 5e-2, 0.2),
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def write_shelf(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def faults_of(folder: Path, files: Mapping[str, str]) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_registry(write_shelf(folder, files))
    return caught.value.faults


def rows(recipe: Recipe) -> tuple[float, float, float]:
    return recipe.lr, recipe.weight_decay, recipe.drop_path


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
    [("mini", "digits", 6), ("fgvc", "fgvc_cub", 5), ("fewshot", "fewshot_food101_1", 25)],
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
    assert "[own_-3]: shots: Input should be greater than or equal to 0" in fault


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
        expected = "micro" if task.suite == "mini" else "vit_s_to_vit_b"
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


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("cifar", "cifar100"),
        ("CIFAR-100", "cifar100"),
        ("oxford_flowers102", "flowers102"),
        ("oxford_iiit_pet", "pets"),
        ("retinopathy", "diabetic_retinopathy"),
        ("camelyon", "patch_camelyon"),
        ("DTD", "dtd"),
    ],
)
def test_aliases_and_other_spellings_find_the_task(
    registry: Registry, name: str, task: str
) -> None:
    assert registry.find_task(name).id == task


def test_task_lists_keep_their_order_and_name_each_task_once(registry: Registry) -> None:
    tasks = resolve_tasks("svhn, dtd,natural,cifar", registry)
    assert [task.id for task in tasks] == [
        "svhn",
        "dtd",
        "cifar100",
        "caltech101",
        "flowers102",
        "pets",
        "sun397",
    ]


@pytest.mark.parametrize("text", ["", "dtd,", ",dtd"])
def test_empty_names_in_a_task_list_are_refused(registry: Registry, text: str) -> None:
    with pytest.raises(RecipeError, match="commas between"):
        resolve_tasks(text, registry)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "dttd", "adapter": "lora"}, "unknown task 'dttd'. Did you mean 'dtd'?"),
        ({"task": "dtd", "adapter": "lorra"}, "unknown adapter 'lorra'. Did you mean 'lora'"),
        (
            {"task": "dtd", "adapter": "lora", "pair": "mikro"},
            "unknown pair 'mikro'. Did you mean 'micro'?",
        ),
        (
            {"task": "dtd", "adapter": "lora", "teacher": "vit_l0"},
            "unknown backbone 'vit_l0'. Did you mean 'vit_l'",
        ),
        ({"task": "DTDD", "adapter": "lora"}, "unknown task 'DTDD'. Did you mean 'dtd'"),
        ({"task": "dtd", "adapter": "LoRA"}, "unknown adapter 'LoRA'. Did you mean 'lora'?"),
        (
            {"task": "dtd", "adapter": "Shared-Parallel"},
            "unknown adapter 'Shared-Parallel'. Did you mean 'shared_parallel'?",
        ),
        (
            {"task": "dtd", "adapter": "lora", "pair": "VIT-S-to-VIT-B"},
            "unknown pair 'VIT-S-to-VIT-B'. Did you mean 'vit_s_to_vit_b'?",
        ),
        (
            {"task": "dtd", "adapter": "lora", "teacher": "ViT-L"},
            "unknown backbone 'ViT-L'. Did you mean 'vit_l'?",
        ),
        (
            {"task": "dtd", "adapter": "lora", "teacher": "None"},
            "unknown backbone 'None'. Did you mean 'none'?",
        ),
        ({"task": "my-flowers", "adapter": "lora"}, "unknown task 'my-flowers'."),
        ({"task": "Folders", "adapter": "lora"}, "unknown task 'Folders'. Did you mean 'folder'"),
    ],
)
def test_unknown_names_answer_did_you_mean(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        get_recipe(**arguments)
    assert caught.value.message.startswith(message)


def test_an_unknown_recipe_id_answers_did_you_mean(registry: Registry) -> None:
    with pytest.raises(UnknownNameError, match="unknown recipe 'micro/lorra/digits'") as caught:
        find_recipe(registry, "micro/lorra/digits")
    assert "'micro/lora/digits'" in caught.value.message
    with pytest.raises(UnknownNameError, match="Did you mean 'micro/lora/digits'\\?"):
        find_recipe(registry, "Micro/LoRA/Digits")
    for name in ("mikro/lora/digits", "micro/lora/digit", "mikro/lorra/digit"):
        with pytest.raises(UnknownNameError, match=r"Did you mean .*'micro/lora/digits'"):
            find_recipe(registry, name)
    with pytest.raises(UnknownNameError, match="unknown recipe 'zzz/zzz/zzz'") as caught:
        find_recipe(registry, "zzz/zzz/zzz")
    assert caught.value.hint == "`idat list recipes` lists them."


def test_a_users_task_is_found_however_it_is_spelt(tmp_path: Path) -> None:
    table = 'suite = "fgvc"\nnum_classes = 3\nnum_test = []\npair = "micro"\n'
    own = "".join(f"[{name}]\n{table}" for name in ("My-Flowers", "a_b", "A-B"))
    registry = load_registry(write_shelf(tmp_path, {"tasks.toml": own}))
    assert registry.find_task("my_flowers").id == registry.find_task("MY-FLOWERS").id
    assert [registry.find_task(name).id for name in ("a_b", "A-B")] == ["a_b", "A-B"]
    with pytest.raises(UnknownNameError, match=r"'a-b'\. Did you mean 'A-B' or 'a_b'\?"):
        registry.find_task("a-b")


def test_options_are_written_out_and_the_teacher_has_the_students() -> None:
    recipe = get_recipe("digits", "lora", overrides=["adapter.rank=4"])
    assert recipe.pair.name == "micro"
    assert recipe.adapter.options == {"rank": 4, "scale": 1.0, "dropout": 0.0}
    assert recipe.teacher_adapter == recipe.adapter


def test_values_are_toml_or_else_plain_strings() -> None:
    recipe = get_recipe(
        "dtd", "lora", overrides=["lr=1", "distillation=kl", 'detach="teacher"', "temperature=3"]
    )
    assert (recipe.lr, recipe.distillation.name, recipe.detach) == (1.0, "kl", "teacher")
    assert (type(recipe.lr), type(recipe.distillation.options["temperature"])) == (float, float)


def test_a_value_cannot_bring_a_second_key() -> None:
    with pytest.raises(RecipeError, match="lr: Input should be a valid number"):
        get_recipe("dtd", "lora", overrides=["lr=1\nepochs = 3"])


@pytest.mark.parametrize(("epochs", "warmup"), [(30, 10), (8, 4), (1, 0)])
def test_fewer_epochs_shorten_the_warmup_unless_it_is_given(epochs: int, warmup: int) -> None:
    words = [f"epochs={epochs}"]
    assert get_recipe("dtd", "lora", overrides=words).warmup_epochs == warmup
    assert get_recipe("dtd", "lora", overrides=[*words, "warmup_epochs=1"]).warmup_epochs == 1


def test_the_teachers_adapter_may_differ() -> None:
    other_rank = get_recipe("dtd", "lora", overrides=["teacher_adapter.rank=2"])
    assert other_rank.teacher_adapter is not None
    assert other_rank.teacher_adapter.options["rank"] == 2
    assert other_rank.adapter.options["rank"] == 8
    head_only = get_recipe("dtd", "lora", overrides=["teacher_adapter=linear"])
    assert head_only.teacher_adapter == AdapterSpec(name="linear", options={"dropout": 0.0})


def test_no_teacher_means_no_teacher_adapter_and_no_distillation() -> None:
    recipe = get_recipe("dtd", "lora", teacher="none")
    assert recipe.pair.name == "vit_s_to_vit_b"
    assert (recipe.pair.teacher, recipe.teacher_adapter, recipe.distillation.name) == (
        None,
        None,
        "none",
    )


def test_another_teacher_names_the_pair_anew() -> None:
    recipe = get_recipe("dtd", "lora", teacher="vit_ti")
    assert recipe.pair == get_recipe("dtd", "lora", pair="vit_ti_to_vit_b").pair
    assert get_recipe("dtd", "lora", teacher="vit_s") == get_recipe("dtd", "lora")


def test_an_option_that_came_later_is_written_only_where_it_is_used() -> None:
    plain = get_recipe("digits", "lora")
    assert "key" not in plain.adapter.options
    assert get_recipe("digits", "lora", overrides=["adapter.key=false"]) == plain
    used = get_recipe("digits", "lora", overrides=["adapter.key=true"])
    assert used.adapter.options == {**plain.adapter.options, "key": True}
    words = ["selection=val", "candidates.adapter.key=[false,true]"]
    chosen = get_recipe("digits", "lora", overrides=words)
    assert chosen.candidates == {"adapter.key": (False, True)}


def test_candidates_take_the_types_of_their_fields() -> None:
    recipe = get_recipe(
        "dtd",
        "lora",
        overrides=["selection=val", "candidates.lr=[1, 1e-3]", "candidates.adapter.rank=[2]"],
    )
    assert recipe.candidates == {"lr": (1.0, 1e-3), "adapter.rank": (2,)}
    assert type(recipe.candidates["lr"][0]) is float


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr"], "'lr': expected KEY=VALUE, e.g. lr=1e-3"),
        (["=1"], "'=1': expected KEY=VALUE, e.g. lr=1e-3"),
        (["lr=1", "lr=2"], "'lr' is given twice: lr=1 and lr=2"),
        (["lrr=1"], "override: unknown key 'lrr'. Did you mean 'lr'?"),
        (["Batch-Size=8"], "override: unknown key 'Batch-Size'. Did you mean 'batch_size'?"),
        (
            ["rank=4"],
            "override: unknown key 'rank'. Did you mean 'adapter.rank' or "
            "'candidates.adapter.rank' or 'teacher_adapter.rank'?",
        ),
        (["lr=abc"], "override: lr: Input should be a valid number (got 'abc')"),
        (["lr=-1"], "override: lr: Input should be greater than 0 (got -1)"),
        (["epochs=0"], "override: epochs: Input should be greater than 0 (got 0)"),
        (["adapter=lora"], "override: adapter: is chosen by --adapter, not by a word"),
        (["teacher=none"], "override: teacher: is chosen by --teacher, not by a word"),
        (["seed=1"], "override: seed: is chosen by --seed, not by a word"),
        (["data_dir=x"], "override: data_dir: is chosen by --data-dir, not by a word"),
        (
            ["adapter.rnk=4"],
            "override: unknown key 'adapter.rnk'. Did you mean 'adapter.rank' or "
            "'adapter.key' or 'adapter.parts'?",
        ),
        (
            ["teacher_adapter.rank=0"],
            "override: adapter 'lora': rank: Input should be greater than or equal to 1 (got 0)",
        ),
        (
            ["distillation=kl", "temperature_squared=1"],
            "override: distillation 'kl': temperature_squared: Input should be a valid boolean (got 1)",
        ),
        (
            ["temperature=3"],
            "override: temperature and temperature_squared act only with distillation = 'kl'",
        ),
        (["warmup_epochs=101"], "override: warmup_epochs = 101 is more than epochs = 100"),
        (
            ["lr=1", "selection=val", "candidates.lr=[1]"],
            "override: lr: candidates.lr chooses it; set only one of the two",
        ),
        (
            ["selection=val", "candidates.lr=[-1]"],
            "override: candidates: lr: Input should be greater than 0 (got -1)",
        ),
        (
            ["selection=val", "candidates.adapter.rank=[0]"],
            "override: candidates: adapter 'lora': rank: "
            "Input should be greater than or equal to 1 (got 0)",
        ),
        (
            ["candidates.lr=[1]"],
            "override: candidates need selection = 'val'",
        ),
    ],
)
def test_each_wrong_word_is_named(words: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        get_recipe("dtd", "lora", overrides=words)
    assert caught.value.faults == [message]


def test_all_wrong_words_are_named_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        get_recipe("dtd", "lora", overrides=["lr=x", "epochs=-1", "adapter.rank=0"])
    assert len(caught.value.faults) == 3


def test_words_for_a_teacher_that_is_not_there_are_refused() -> None:
    with pytest.raises(RecipeError, match="this recipe has no teacher"):
        get_recipe("dtd", "lora", teacher="none", overrides=["teacher_adapter.rank=2"])
    with pytest.raises(RecipeError, match="needs a teacher"):
        get_recipe("dtd", "lora", teacher="none", overrides=["distillation=kl"])


OWN = {
    "backbones.toml": '[mine]\ntimm = "vit_tiny_patch16_224"\nweights = "random"\n',
    "pairs.toml": '[mine]\nteacher = "vit_ti"\nstudent = "mine"\n',
    "tasks.toml": (
        '[pet]\nsuite = "vtab1k"\ngroup = "natural"\nnum_classes = 3\nnum_test = [9]\n'
        'pair = "mine"\nfolder = "pet"\n'
    ),
    "recipes/mine.toml": (
        'extends = "vit_s_to_vit_b"\n[defaults]\nepochs = 20\n'
        "[adapter.lora]\noptions = { rank = 2 }\nlr = 2e-3\n"
        "[task.pet]\nlr = 3e-3\nbatch_size = 32\n"
        '[override.both]\nadapters = ["lora"]\ntasks = ["pet"]\nlr = 4e-3\n'
    ),
}


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


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def backbone_of(folder: Path, **fields: Any) -> Backbone:
    shelf = write_shelf(folder, {"backbones.toml": tomli_w.dumps({"mine": fields})})
    return load_registry(shelf).find_backbone("mine")


@pytest.mark.parametrize(
    ("timm", "weights", "values"),
    [
        ("deit_base_patch16_224", "fb_in1k", (224, *IMAGENET)),
        ("vit_small_patch14_dinov2", "lvd142m", (518, *IMAGENET)),
        ("vit_base_patch16_clip_224", "openai", (224, *OPENAI)),
        ("vit_base_patch16_384", "augreg_in21k_ft_in1k", (384, *HALF)),
        ("vit_base_patch16_224", "random", (224, *HALF)),
    ],
)
def test_what_a_backbone_leaves_out_is_what_its_weights_were_trained_with(
    tmp_path: Path, timm: str, weights: str, values: tuple[Any, ...]
) -> None:
    found = backbone_of(tmp_path, timm=timm, weights=weights)
    assert (found.img_size, found.mean, found.std) == values
    assert differences(found) == []
    if weights != "random":
        asked = backbone_of(tmp_path, timm=timm, weights=weights, img_size="native")
        assert asked == found


def test_what_a_backbone_says_is_kept_and_differences_are_told(tmp_path: Path) -> None:
    dino = {"timm": "vit_small_patch14_dinov2", "weights": "lvd142m"}
    own = backbone_of(tmp_path, **dino, img_size=224, mean=[0.5, 0.5, 0.5])
    assert (own.img_size, own.mean, own.std) == (224, HALF[0], IMAGENET[1])
    assert differences(own) == [
        "backbone 'mine': img_size is 224; vit_small_patch14_dinov2.lvd142m was trained with 518",
        "backbone 'mine': mean is 0.5, 0.5, 0.5; vit_small_patch14_dinov2.lvd142m was trained with "
        "0.485, 0.456, 0.406",
    ]


def test_backbones_that_ship_are_given_what_timm_says_and_stay_as_they_were(
    registry: Registry,
) -> None:
    told = {name for name, backbone in registry.backbones.items() if differences(backbone)}
    assert told == {"dinov2_s", "dinov2_b", "dinov2_reg_s", "dinov2_reg_b"}  # 224, not 518
    for name in ("vit_ti", "vit_s", "vit_b", "vit_b_orig", "vit_l"):
        backbone = registry.backbones[name]
        assert (backbone.img_size, backbone.mean, backbone.std) == (224, *HALF)
    dino = registry.backbones["dinov2_b"]
    assert (dino.img_size, dino.mean) == (224, (0.485, 0.456, 0.406))
    assert registry.backbones["dinov3_s"].img_size == 256


@pytest.mark.parametrize(
    ("timm", "weights", "told"),
    [
        ("vit_small_patch14_dinov2", "lvd142", "'lvd142'. Did you mean 'lvd142m'?"),
        ("vit_smal_patch16_224", "augreg_in21k", "Did you mean 'vit_small_patch16_224'"),
    ],
)
def test_weights_that_timm_has_not_need_every_value(
    tmp_path: Path, timm: str, weights: str, told: str
) -> None:
    table = {"timm": timm, "weights": weights, "img_size": 64}
    (fault,) = faults_of(tmp_path, {"backbones.toml": tomli_w.dumps({"mine": table})})
    assert told in fault
    assert "has to say img_size, mean and std itself" in fault
    assert backbone_of(tmp_path, **table, mean=[0, 0, 0], std=[1, 1, 1]).img_size == 64


def test_a_size_of_another_type_is_refused(tmp_path: Path) -> None:
    for size, weights in (("large", "lvd142m"), ("native", "random"), (22.4, "lvd142m")):
        table = {"timm": "vit_small_patch14_dinov2", "weights": weights, "img_size": size}
        (fault,) = faults_of(tmp_path, {"backbones.toml": tomli_w.dumps({"mine": table})})
        assert "[mine]: img_size: Input should be a valid integer" in fault


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
        "backbones.toml: [a]: timm: Field required",
        "backbones.toml: [a]: weights: Field required",
        "pairs.toml: [mine]: teacher: unknown backbone 'vit_tiny'. Did you mean 'vit_ti'",
        "tasks.toml: stray: expected a table [stray] (got 1)",
        "tasks.toml: [a/b]: a name has only letters",
        "tasks.toml: [mine]: group: Input should be 'natural', 'specialized' or 'structured'",
        "tasks.toml: [mine]: num_classes: Input should be greater than 1 (got 1)",
        "tasks.toml: [mine]: aliases.2: Input should be a valid string (got 1)",
        "tasks.toml: [mine]: pair: unknown pair 'micr'. Did you mean 'micro'",
        "tasks.toml: [mine]: aliases: 'dtd' is already a name of task 'dtd'",
        "tasks.toml: [mine]: aliases: 'natural' is the name of a group",
        "recipes/tiny_random.toml: [defaults]: unknown key 'lrr'. Did you mean 'lr'?",
        "recipes/tiny_random.toml: [defaults]: lr: Input should be greater than 0 (got -1)",
        "recipes/tiny_random.toml: [adapter.lora]: adapter 'lora': unknown key 'alpha'.",
        "recipes/tiny_random.toml: [adapter.lora]: adapter 'lora': rank: Input should be greater",
        "recipes/tiny_random.toml: [adapter.loro]: unknown adapter 'loro'. Did you mean 'lora'",
        "recipes/tiny_random.toml: [override.x]: unknown task 'dtdd'. Did you mean 'dtd'?",
        "recipes/tiny_random.toml: [override.x]: adapters: Field required",
        "recipes/tiny_random.toml: unknown table 'overide'. Did you mean 'override'?",
        "recipes/tiny_random.toml: extends: 'vit_ti_to_vit_s' extends another file itself",
        "recipes/nopair.toml: unknown pair 'nopair'.",
        "recipes/nopair.toml: defaults: expected a table [defaults] (got 3)",
    ]
    for start in expected:
        assert any(fault.startswith(f"{tmp_path}/{start}") for fault in faults), start
    assert len(faults) == len(expected)


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
        ("rank = 8", "rank = 0", "adapter 'lora': rank: Input should be greater"),
        ("lr = 0.001", "lr = ", "broken TOML"),
        ("lr = 0.001", 'lr = "0.001"', "lr: Input should be a valid number"),
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


# From Python


def test_overrides_are_words_or_a_mapping() -> None:
    words = get_recipe("digits", "lora", overrides=["epochs=2", "adapter.rank=4", "lr=0.02"])
    mapping = {"epochs": 2, "adapter.rank": 4, "lr": 0.02}
    assert get_recipe("digits", "lora", overrides=mapping) == words
    assert get_recipe("digits", "lora", overrides="epochs=2").epochs == 2
    chosen = get_recipe(
        "digits", "lora", overrides={"selection": "val", "candidates.lr": (1e-3, 1e-2)}
    )
    assert chosen.candidates == {"lr": (1e-3, 1e-2)}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"epoch": 2}, "unknown key 'epoch'. Did you mean 'epochs'"),
        ({"epochs": "2"}, "epochs: Input should be a valid integer (got '2')"),
        ({"adapter.rank": 0}, "rank"),
        ({"task": "dtd"}, "task"),
    ],
)
def test_a_mapping_is_checked_as_words_are(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        get_recipe("digits", "lora", overrides=wrong)
    assert told in str(caught.value)


def test_ones_own_images_are_a_task_from_python_too(tmp_path: Path) -> None:
    fakes.write_class_folders(tmp_path / "pets", {"cat": 9, "dog": 9})
    for place in (tmp_path / "pets", str(tmp_path / "pets")):
        recipe = get_recipe("folder", "lora", pair="micro", data_dir=place)
        assert recipe.task.class_names == ("cat", "dog")
        assert recipe.task.id.startswith("folder-")
    assert get_recipe("folder", "lora", data_dir=place).pair.name == "vit_s_to_vit_b"
    for wrong in ({"task": "folder"}, {"task": "digits", "data_dir": tmp_path}):
        with pytest.raises(UsageError, match="data_dir is where the images of task 'folder' are"):
            get_recipe(adapter="lora", **wrong)  # type: ignore[arg-type]


def test_dir_is_what_is_public_and_loads_nothing() -> None:
    code = (
        "import sys, idat_zoo; print(*dir(idat_zoo)); "
        "print(all(callable(getattr(idat_zoo, name)) for name in dir(idat_zoo)))"
    )
    bare = "import sys, idat_zoo; dir(idat_zoo); print('torch' in sys.modules)"
    said = [
        subprocess.run([sys.executable, "-c", c], capture_output=True, text=True, check=True).stdout
        for c in (code, bare)
    ]
    assert said == ["adapt evaluate load load_plugin run run_many\nTrue\n", "False\n"]
