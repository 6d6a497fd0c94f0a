"""The names by which tasks and recipes are found, however they are spelt."""

from pathlib import Path

import pytest
from shelf_files import write_shelf

from idat_zoo.errors import RecipeError, UnknownNameError
from idat_zoo.registry import Registry, find_recipe, get_recipe, load_registry, resolve_tasks


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


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
