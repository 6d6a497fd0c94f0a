"""The distillation terms against the released code's own lines, and what each of them pulls at."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from conftest import learner_of, toy_recipe
from idat_zoo.data import load_task
from idat_zoo.distillation import build_term
from idat_zoo.distillation.base import Outputs
from idat_zoo.recipe import Recipe, TermSpec


def logits(seed: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(7, 5, generator=source, dtype=torch.float64)


STUDENT, TEACHER = logits(1), logits(2)


def distill(
    student: torch.Tensor, teacher: torch.Tensor, name: str, **options: Any
) -> torch.Tensor:
    term = build_term(TermSpec(name=name, options=options))
    return term.loss(Outputs(student), Outputs(teacher))


def distill_mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return distill(student, teacher, "mse")


def distill_kl(student: torch.Tensor, teacher: torch.Tensor, **options: Any) -> torch.Tensor:
    return distill(student, teacher, "kl", **options)


def term_of(recipe: Recipe, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The distillation part of a step's losses."""
    learner = learner_of(recipe, load_task(recipe.task, img_size=16).train)
    outputs = {"student": Outputs(student), "teacher": Outputs(teacher)}
    return learner.losses(outputs, torch.zeros(len(student), dtype=torch.long))["distillation_loss"]


def test_mse_is_the_released_line() -> None:
    assert distill_mse(STUDENT, TEACHER) == F.mse_loss(STUDENT, TEACHER)
    by_hand = sum((s - t) ** 2 for s, t in zip(STUDENT.flatten(), TEACHER.flatten(), strict=True))
    assert distill_mse(STUDENT, TEACHER).item() == pytest.approx(float(by_hand) / 35)


def test_kl_is_the_released_line() -> None:
    released = F.kl_div(
        F.softmax(STUDENT / 5, dim=1).log(), F.softmax(TEACHER / 5, dim=1), reduction="batchmean"
    )
    ours = distill_kl(STUDENT, TEACHER, temperature=5.0, temperature_squared=False)
    assert ours.item() == pytest.approx(released.item(), rel=1e-12)


def test_kl_is_of_the_teacher_from_the_student_and_not_the_reverse() -> None:
    student, teacher = (torch.tensor([[0.0, z]], dtype=torch.float64) for z in (0.0, 4.0))
    p, q = teacher.softmax(1), student.softmax(1)
    expected = (p * (p / q).log()).sum().item()
    reverse = (q * (q / p).log()).sum().item()
    ours = distill_kl(student, teacher, temperature=1.0, temperature_squared=False).item()
    assert ours == pytest.approx(expected, rel=1e-12)
    assert abs(expected - reverse) > 0.1


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_t_squared_is_a_plain_factor(temperature: float) -> None:
    plain, squared = (
        distill_kl(STUDENT, TEACHER, temperature=temperature, temperature_squared=on).item()
        for on in (False, True)
    )
    assert squared == pytest.approx(temperature**2 * plain, rel=1e-12)


def test_for_small_differences_kl_at_5_is_a_fiftieth_of_mse() -> None:
    # KL ~ var_p(d) / (2 T^2) for a difference d. At equal logits p is uniform, so var_p(d) is the
    # plain variance over classes, which is mse where d has no common shift.
    teacher = torch.zeros(64, 10, dtype=torch.float64)
    difference = 1e-3 * torch.randn(64, 10, generator=torch.Generator().manual_seed(0)).double()
    student = difference - difference.mean(1, keepdim=True)
    kl = distill_kl(student, teacher, temperature=5.0, temperature_squared=False)
    assert (kl / distill_mse(student, teacher)).item() == pytest.approx(1 / 50, rel=1e-3)


def test_a_common_shift_costs_mse_and_not_kl() -> None:
    shifted = STUDENT + 2
    assert distill_mse(shifted, STUDENT).item() == pytest.approx(4)
    kl = distill_kl(shifted, STUDENT, temperature=5.0, temperature_squared=False)
    assert kl.item() == pytest.approx(0, abs=1e-12)


def test_equal_logits_cost_nothing() -> None:
    assert distill_mse(STUDENT, STUDENT) == 0
    kl = distill_kl(STUDENT, STUDENT, temperature=5.0, temperature_squared=True)
    assert kl.item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("distillation", ["mse", "kl"])
@pytest.mark.parametrize("detach", ["none", "teacher", "student"])
def test_the_detached_side_alone_gets_no_gradient(distillation: str, detach: str) -> None:
    recipe = toy_recipe(distillation=distillation, detach=detach)
    student, teacher = (logits(seed).requires_grad_() for seed in (1, 2))
    term = term_of(recipe, student, teacher)
    grads = torch.autograd.grad(term, [student, teacher], allow_unused=True)
    for side, grad in zip(("student", "teacher"), grads, strict=True):
        assert (grad is None) == (side == detach)
        assert grad is None or grad.abs().sum() > 0
    free = toy_recipe(distillation=distillation)
    assert term.item() == term_of(free, student, teacher).item()


def test_the_recipe_chooses_term_temperature_and_factor() -> None:
    kl = toy_recipe(distillation="kl", temperature=2.0, temperature_squared=True)
    expected = distill_kl(STUDENT, TEACHER, temperature=2.0, temperature_squared=True)
    assert term_of(kl, STUDENT, TEACHER) == expected
    assert term_of(toy_recipe(), STUDENT, TEACHER) == distill_mse(STUDENT, TEACHER)
