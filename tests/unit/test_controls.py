"""Controls: named changes of a recipe, and the joint task loss that one of them trains by."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from toy_runs import trained
from typer.testing import CliRunner

from conftest import DIGITS, learner_of, toy_recipe
from idat_zoo.backbones.cost import forward_cost
from idat_zoo.backbones.frozen import describe_anatomy
from idat_zoo.data.load import load_task
from idat_zoo.distillation.base import Outputs
from idat_zoo.engine.divergence import divergence
from idat_zoo.engine.learner import EpochLog
from idat_zoo.errors import RecipeError, RunFolderError, UsageError
from idat_zoo.publishing.finished_run import read_finished
from idat_zoo.recipe import Recipe
from idat_zoo.registry import compose_recipe, get_recipe, load_registry
from idat_zoo.registry.controls import CONTROLS, compute_ratio, trained_numbers
from idat_zoo.results import load_result

REGISTRY = load_registry()


def control(name: str, recipe: Recipe) -> Recipe:
    return CONTROLS[name].apply(recipe, REGISTRY)


def micro(*words: str, adapter: str = "lora") -> Recipe:
    return get_recipe("digits", adapter, overrides=list(words))


def test_no_coupling_keeps_the_teacher_and_nothing_between_them() -> None:
    own = control("no_coupling", micro("distillation=kl", "detach=teacher", "lr=2e-3"))
    assert own == micro("distillation=none", "lr=2e-3")
    assert own.pair.teacher is not None


def test_the_student_without_coupling_is_bit_equal_to_the_one_alone(tmp_path: Path) -> None:
    recipe = toy_recipe(distillation="kl", distillation_weight=2.0)
    folders = {
        name: trained(control(name, recipe), tmp_path / name) for name in ("no_coupling", "alone")
    }
    tensors, predictions = (
        [load_file(folder / name) for folder in folders.values()]
        for name in ("adapter_model.safetensors", "predictions.safetensors")
    )
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    assert torch.equal(predictions[0]["student"], predictions[1]["student"])
    apart = load_result(folders["no_coupling"] / "result.json")
    assert load_result(folders["alone"] / "result.json").logit_ensemble is None
    mean = (predictions[0]["student"] + predictions[0]["teacher"]) / 2
    right = (mean.argmax(1) == predictions[0]["target"]).double().mean().item()
    assert apart.logit_ensemble is not None
    assert apart.logit_ensemble.top1 == pytest.approx(right)
    assert "mean of both networks' logits" in str(apart)


def test_the_cost_is_that_of_the_matrix_products() -> None:
    anatomy = describe_anatomy(toy_recipe().pair.student)
    tokens, width, hidden, depth = 5, 24, 96, 2
    block = tokens * width * (3 * width + width) + 2 * tokens * width * hidden
    block += 2 * tokens * tokens * width
    patches = 4 * 8 * 8 * 3 * width
    assert forward_cost(anatomy) == 2 * (depth * block + patches)


def test_equal_compute_is_more_epochs_alone() -> None:
    recipe = micro("epochs=50", "warmup_epochs=10")
    ratio = compute_ratio(recipe)
    assert 1 < ratio < 2
    own = control("equal_compute", recipe)
    assert own.pair.teacher is None
    assert (own.epochs, own.warmup_epochs) == (round(50 * ratio), round(10 * ratio))
    same = {"epochs": 50, "warmup_epochs": 10}
    assert own.model_copy(update=same) == control("alone", recipe)


@pytest.mark.parametrize("family", ["lora", "adaptformer", "vpt_deep", "compacter"])
def test_equal_parameters_is_the_smallest_adapter_that_reaches_both(family: str) -> None:
    recipe = micro(adapter=family)
    teacher, of_teacher = recipe.pair.teacher, recipe.teacher_adapter
    assert teacher is not None
    assert of_teacher is not None
    wanted = trained_numbers(recipe.pair.student, recipe.adapter, 10)
    wanted += trained_numbers(teacher, of_teacher, 10)
    own = control("equal_parameters", recipe)
    (option,) = (k for k, v in own.adapter.options.items() if v != recipe.adapter.options[k])
    assert own.pair.teacher is None
    assert trained_numbers(own.pair.student, own.adapter, 10) >= wanted
    less = {**own.adapter.options, option: int(own.adapter.options[option]) - 1}
    smaller = own.adapter.model_copy(update={"options": less})
    assert trained_numbers(own.pair.student, smaller, 10) < wanted


def test_twins_are_two_of_the_student() -> None:
    recipe = micro("teacher_adapter.rank=3")
    own = control("twins", recipe)
    assert own.pair.name == "micro_twins"
    assert own.pair.teacher == own.pair.student == recipe.pair.student
    assert own.teacher_adapter == own.adapter == recipe.adapter
    assert own.distillation == recipe.distillation


def test_swapped_is_the_larger_teacher() -> None:
    recipe = micro("teacher_adapter.rank=3")
    own = control("swapped", recipe)
    assert own.pair.name == "micro_swapped"
    assert (own.pair.student, own.pair.teacher) == (recipe.pair.teacher, recipe.pair.student)
    assert (own.adapter, own.teacher_adapter) == (recipe.teacher_adapter, recipe.adapter)


def test_full_has_the_values_of_its_family_and_those_that_were_asked_for() -> None:
    own = control("full", micro("drop_path=0.2"))
    bare = compose_recipe(REGISTRY, "digits", "full", teacher="none")
    assert own == bare.model_copy(update={"drop_path": 0.2})
    assert own.lr == 1e-3
    assert control("full", micro("lr=3e-3")).lr == 3e-3


def test_the_joint_probe_is_linear_on_both() -> None:
    own = control("joint_probe", micro("distillation=kl", "epochs=7"))
    assert own.adapter.name == "linear"
    assert own.adapter == own.teacher_adapter
    assert (own.task_loss, own.distils, own.epochs) == ("joint", False, 7)
    assert CONTROLS["joint_probe"].metric == CONTROLS["logit_ensemble"].metric == "logit_ensemble"


def test_the_joint_probe_is_one_linear_layer_on_both_networks_features() -> None:
    recipe = toy_recipe("linear", distillation="none", task_loss="joint", drop_path=0.0)
    split = load_task(recipe.task, img_size=16).train
    own = learner_of(recipe, split)
    heads = {role: network.head.double() for role, network in own.pair.roles()}
    features = {
        r: torch.randn(64, h.weight.shape[1], dtype=torch.float64) for r, h in heads.items()
    }
    targets = split.targets[:64]
    outputs: dict[Any, Outputs] = {role: Outputs(heads[role](z)) for role, z in features.items()}
    own.losses(outputs, targets)["loss"].backward()

    both = torch.nn.Linear(sum(h.weight.shape[1] for h in heads.values()), 10).double()
    with torch.no_grad():
        both.weight.copy_(torch.cat([head.weight for head in heads.values()], dim=1))
        both.bias.copy_(sum(head.bias for head in heads.values()))
    logits = both(torch.cat(list(features.values()), dim=1))
    summed = outputs["student"].logits + outputs["teacher"].logits
    torch.testing.assert_close(logits, summed, rtol=0, atol=1e-12)
    F.cross_entropy(logits, targets).backward()
    gradient = torch.cat([head.weight.grad for head in heads.values()], dim=1)
    torch.testing.assert_close(gradient, both.weight.grad, rtol=0, atol=1e-12)
    for head in heads.values():  # the bias is there in two halves
        torch.testing.assert_close(head.bias.grad, both.bias.grad, rtol=0, atol=1e-12)


def test_a_joint_run_says_what_it_is_and_is_not_published(tmp_path: Path) -> None:
    folder = trained(control("joint_probe", toy_recipe()), tmp_path)
    result = load_result(folder / "result.json")
    predicted = load_file(folder / "predictions.safetensors")
    summed = predicted["student"] + predicted["teacher"]
    right = (summed.argmax(1) == predicted["target"]).double().mean().item()
    assert result.logit_ensemble is not None
    assert result.logit_ensemble.top1 == pytest.approx(right)
    assert "top-1 is the student's alone" in str(result)
    assert '"joint_task_loss"' in (folder / "log.jsonl").read_text()
    with pytest.raises(RunFolderError, match="task_loss = joint"):
        read_finished(folder)


def test_a_joint_run_diverges_by_its_joint_loss() -> None:
    recipe = toy_recipe("linear", distillation="none", task_loss="joint")
    log = EpochLog(epoch=2, lr=0.1, loss=1.0, student_task_loss=99.0, joint_task_loss=1.0)
    assert divergence(log, recipe) is None
    log = EpochLog(epoch=2, lr=0.1, loss=9.0, student_task_loss=1.0, joint_task_loss=9.0)
    assert "the joint task loss" in str(divergence(log, recipe))


@pytest.mark.parametrize(
    "fields",
    [
        {"teacher": False},
        {"protocol": "paper"},
        {"selection": "val", "candidates": {"lr": (0.1, 0.2)}},
    ],
)
def test_a_joint_loss_is_refused_where_it_has_no_meaning(fields: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="task_loss = 'joint'"):
        toy_recipe(task_loss="joint", **fields)


def test_without_a_teacher_a_joint_recipe_is_a_plain_one() -> None:
    joint = control("joint_probe", micro())
    assert control("alone", joint).task_loss == "each"


@pytest.mark.parametrize("name", [name for name in CONTROLS if name != "full"])
def test_a_recipe_without_a_teacher_has_no_such_control(name: str) -> None:
    with pytest.raises(UsageError, match=f"control '{name}' of .* it has no teacher"):
        control(name, micro().model_copy(update={"pair": _without_teacher()}))


def _without_teacher() -> Any:
    return micro().pair.model_copy(update={"teacher": None})


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("equal_parameters", lambda: micro(adapter="bitfit"), "no option for its size"),
        ("equal_compute", lambda: micro("epochs=90000"), "epochs, and"),
        (
            "equal_compute",
            lambda: micro("selection=val", "candidates.epochs=[10,20]"),
            "its epochs are among its candidates",
        ),
        (
            "joint_probe",
            lambda: micro("selection=val", "candidates.lr=[0.1,0.2]"),
            "takes no selection",
        ),
    ],
)
def test_what_cannot_be_made_is_one_line(
    name: str, change: Callable[[], Recipe], told: str
) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        control(name, change())
    assert "\n" not in caught.value.message


def test_the_command_line_trains_and_lists_controls() -> None:
    from idat_zoo.cli import app

    runner = CliRunner()
    words = ["train", "--task", DIGITS.id, "--adapter", "lora", "--control", "swapped", "--dry-run"]
    done = runner.invoke(app, words)
    assert done.exit_code == 0
    assert 'name = "micro_swapped"' in done.stdout
    listed = runner.invoke(app, ["list", "controls"])
    assert all(name in listed.stdout for name in CONTROLS)
    for more, told in (
        (["--control", "swaped"], "Did you mean 'swapped'"),
        (["--control", "swapped", "--teacher", "none"], "give one of them"),
    ):
        refused = runner.invoke(app, [*words[:5], *more, "--dry-run"])
        assert refused.exit_code
        assert told in f"{refused.output}{refused.exception}"
