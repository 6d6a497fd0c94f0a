"""Class weights: cross-entropies in which rare classes count as much as common ones."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from made_results import build_report, made, text
from safetensors.torch import load
from toy_runs import below, trained

from conftest import learner_of, toy_recipe
from idat_zoo.data.load import load_task
from idat_zoo.engine.precision import resolve_precision
from idat_zoo.engine.task_losses import TaskLosses, balanced_weights
from idat_zoo.recipe import Recipe
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.runs.folder import run_folder
from idat_zoo.runs.many import run_many

TARGETS = torch.tensor([0, 0, 0, 0, 1, 1, 3])


def recipe_of(classes: int, **fields: object) -> Recipe:
    recipe = toy_recipe(class_weights="balanced", **fields)
    task = recipe.task.model_copy(update={"num_classes": classes})
    return recipe.model_copy(update={"task": task})


def test_a_class_weighs_as_much_as_any_other_and_an_absent_one_nothing() -> None:
    weights = balanced_weights(TARGETS, 5)
    expected = [7 / (5 * 4), 7 / (5 * 2), 0.0, 7 / 5, 0.0]
    assert weights.tolist() == pytest.approx(expected)
    shares = weights * torch.bincount(TARGETS, minlength=5)
    assert shares[[0, 1, 3]].tolist() == pytest.approx([7 / 5] * 3)


def test_the_losses_are_torch_s_weighted_means() -> None:
    student, teacher = torch.randn(2, 7, 5, requires_grad=True)
    weights = balanced_weights(TARGETS, 5)
    losses = TaskLosses(recipe_of(5), TARGETS)
    loss, parts = losses({"student": student, "teacher": teacher}, TARGETS)
    for role, logits in (("student", student), ("teacher", teacher)):
        assert torch.equal(
            parts[f"{role}_task_loss"], F.cross_entropy(logits, TARGETS, weight=weights)
        )
    of_each = -F.log_softmax(student, 1)[torch.arange(7), TARGETS] * weights[TARGETS]
    mean = of_each.sum() / weights[TARGETS].sum()
    torch.testing.assert_close(parts["student_task_loss"], mean)
    assert loss == parts["student_task_loss"] + parts["teacher_task_loss"]
    loss, _ = TaskLosses(recipe_of(5, task_loss="joint"), TARGETS)(
        {"student": student, "teacher": teacher}, TARGETS
    )
    assert torch.equal(loss, F.cross_entropy(student + teacher, TARGETS, weight=weights))


def test_with_many_classes_without_images_nothing_is_lost_but_them() -> None:
    targets = torch.arange(1000) % 325  # SUN397 shows 325 of its 397 classes in training
    losses = TaskLosses(recipe_of(397), targets)
    logits = torch.randn(64, 397, requires_grad=True)
    loss, _ = losses({"student": logits}, targets[:64])
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_equal_classes_have_the_weight_of_one() -> None:
    assert balanced_weights(torch.arange(20) % 5, 5).tolist() == [1.0] * 5


def test_the_weights_are_counted_on_what_is_trained_on() -> None:
    recipe = toy_recipe(class_weights="balanced")
    data = load_task(recipe.task, img_size=16)
    for split in (data.train, data.trainval):
        weights = learner_of(recipe, split).task_losses.weights
        assert weights is not None
        assert torch.equal(weights, balanced_weights(split.targets, 10))


def test_weighted_and_plain_runs_share_a_pass_without_moving(tmp_path: Path) -> None:
    recipes = [toy_recipe(class_weights=name) for name in ("balanced", "none")]
    run_many([(one, 0) for one in recipes], device="cpu", out=tmp_path / "together", stack=2)
    for one in recipes:
        apart = trained(one, tmp_path / "apart")
        resolved = resolve_precision(one, torch.device("cpu"))
        together = run_folder(tmp_path / "together", resolved, 0)
        for name, content in below(apart).items():
            if name == "predictions.safetensors":
                ours, theirs = load(content), load(below(together)[name])
                for role in ("student", "teacher"):
                    torch.testing.assert_close(ours[role], theirs[role], atol=1e-4, rtol=1e-4)


def test_it_is_named_wherever_the_result_is() -> None:
    recipe = toy_recipe(class_weights="balanced")
    assert "class_weights balanced" in text(build_report([made(recipe=recipe)]))
    assert "class_weights" not in text(build_report([made()]))
    assert recipe_hash(recipe) != recipe_hash(toy_recipe())
