"""The distillation terms against the released code's own lines, and what each of them pulls at."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F

from conftest import for_both, learner_of, toy_recipe
from idat_zoo import outside, run
from idat_zoo.backbones.pair import Backbones, build_pair
from idat_zoo.data.load import load_task
from idat_zoo.distillation import TERMS, build_term, find_term
from idat_zoo.distillation.base import Output, Outputs, Sizes, Term
from idat_zoo.engine.learner import Learner
from idat_zoo.engine.train import Trainer
from idat_zoo.errors import UsageError
from idat_zoo.recipe import Recipe
from idat_zoo.specs import Plugin, TermSpec


def logits(seed: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(7, 5, generator=source, dtype=torch.float64)


STUDENT, TEACHER = logits(1), logits(2)
TARGETS = torch.arange(7) % 5


def distill(
    student: torch.Tensor, teacher: torch.Tensor, name: str, **options: Any
) -> torch.Tensor:
    term = build_term(TermSpec(name=name, options=options))
    return term.loss(Outputs(student), Outputs(teacher), TARGETS)


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


class Probe(Term):
    """A term that keeps what it was handed."""

    name, title, paper, year = "probe", "Probe", "", 2026
    reads = frozenset({Output.FEATURES, Output.TOKENS})
    seen: ClassVar[list[tuple[Outputs, Outputs]]] = []

    def loss(self, student: Outputs, teacher: Outputs, targets: torch.Tensor) -> torch.Tensor:
        self.seen.append((student, teacher))
        assert student.tokens is not None
        return student.tokens.square().mean() + student.logits.square().mean()


@pytest.fixture
def probe() -> Iterator[list[tuple[Outputs, Outputs]]]:
    plugin = Plugin(file="probe.py", sha256="0" * 64)
    outside.add(outside.TERMS_GROUP, {"probe": outside.Provider(Probe, plugin)})
    Probe.seen.clear()
    yield Probe.seen
    outside.forget()


def epoch_of(recipes: Sequence[Recipe]) -> list[Learner]:
    """One epoch of recipes in one pass, on a few images."""
    few = load_task(recipes[0].task, img_size=16).train
    few = replace(few, images=few.images[:64], targets=few.targets[:64], index=few.index[:64])
    backbones, images = Backbones(torch.device("cpu")), for_both(few.held)
    learners = []
    for recipe in recipes:
        recipe = recipe.model_copy(update={"precision": "float32"})
        pair = build_pair(recipe, seed=0, backbones=backbones)
        learners.append(Learner(pair, images, few.targets, recipe, seed=0))
    for learner in learners:
        if learner.has_prefix:
            learner.cache_prefixes()
    Trainer(learners).train_epoch(0)
    return learners


@pytest.mark.parametrize("adapter", ["lora", "vpt_deep", "linear"])
def test_a_term_is_handed_what_it_reads(adapter: str, probe: list[tuple[Outputs, Outputs]]) -> None:
    recipe = toy_recipe(adapter, distillation={"name": "probe"}, drop_path=0.0, batch_size=64)
    (learner,) = epoch_of([recipe])
    ((student, teacher),) = probe
    for outputs, width, network in (
        (student, 24, learner.pair.student),
        (teacher, 12, learner.pair.teacher),
    ):
        assert network is not None
        assert outputs.features is not None
        assert outputs.tokens is not None
        assert outputs.features.shape == (64, width)
        assert outputs.tokens.shape == (64, 5, width)  # prompts are left out
        pooled = network.body.norm(outputs.tokens)[:, 0]
        torch.testing.assert_close(pooled, outputs.features)
        assert outputs.tokens.dtype == torch.float32


def test_no_more_is_kept_than_is_read() -> None:
    learner = learner_of(toy_recipe(), load_task(toy_recipe().task, img_size=16).train)
    outputs = learner.pair.student.outputs(learner.start("student", 0, torch.arange(4)), {}, ())
    assert outputs.features is outputs.tokens is None
    assert learner.reads == {Output.LOGITS}
    assert (
        learner_of(
            toy_recipe(distillation="none"), load_task(toy_recipe().task, img_size=16).train
        ).reads
        == frozenset()
    )


def test_a_stack_hands_each_run_what_it_has_alone(probe: list[tuple[Outputs, Outputs]]) -> None:
    recipes = [
        toy_recipe(distillation={"name": "probe"}, drop_path=0.0, batch_size=64, lr=lr)
        for lr in (1e-3, 5e-3)
    ]
    epoch_of(recipes)
    together = list(probe)
    probe.clear()
    for recipe in recipes:
        epoch_of([recipe])
    for ours, alone in zip(together, probe, strict=True):
        for own, other in zip(ours, alone, strict=True):
            for part, expected in zip(own, other, strict=True):
                torch.testing.assert_close(part, expected)


def test_runs_of_one_pass_may_have_unlike_terms(probe: list[tuple[Outputs, Outputs]]) -> None:
    terms = ({"name": "probe"}, {"name": "kl"}, {"name": "mse"})
    learners = epoch_of([toy_recipe(distillation=term, batch_size=64) for term in terms])
    assert len(probe) == 1
    assert all(learner.done == 1 and learner.fault is None for learner in learners)


def test_a_term_that_cannot_compare_a_pair_is_refused_before_anything_is_loaded(
    probe: list[tuple[Outputs, Outputs]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def why_not(self: Probe, student: Sizes, teacher: Sizes) -> str:
        assert (student, teacher) == (Sizes(10, 24, (5, 24)), Sizes(10, 12, (5, 12)))
        return "their widths differ"

    monkeypatch.setattr(Probe, "why_not", why_not)
    with pytest.raises(UsageError, match=r"'probe' cannot compare .* 'toy': their widths differ"):
        run(toy_recipe(distillation={"name": "probe"}), device="cpu", out=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", TERMS)
def test_every_term_says_what_it_is(name: str) -> None:
    term = find_term(name)
    assert (term.name, bool(term.title and term.paper and term.year and term.__doc__)) == (
        name,
        True,
    )
    assert term.reads
    assert all(field.description for field in term.Options.model_fields.values())
