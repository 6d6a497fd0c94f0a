"""The distillation terms: each against plain algebra, its gradients, and what it ignores."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_distillation import STUDENT, TARGETS, TEACHER, distill, logits
from toy_runs import Notes

from conftest import learner_of, toy_recipe
from idat_zoo import run
from idat_zoo.data.load import load_task
from idat_zoo.distillation import FALLBACK, TERMS, find_term, term_for
from idat_zoo.distillation.base import Output, Outputs, Sizes
from idat_zoo.engine.learner import EpochLog
from idat_zoo.errors import RecipeError, UsageError
from idat_zoo.specs import TermSpec

Matrix = list[list[float]]
OF_LOGITS = [name for name in TERMS if find_term(name).reads == {Output.LOGITS}]


def probabilities(row: list[float], temperature: float = 1.0) -> list[float]:
    """The softmax of one image's logits, by Python's own numbers."""
    powers = [math.exp(z / temperature) for z in row]
    return [p / sum(powers) for p in powers]


def divergence(of: list[float], by: list[float]) -> float:
    return sum(p * math.log(p / q) for p, q in zip(of, by, strict=True))


def kl(of: Matrix, by: Matrix, temperature: float = 1.0) -> float:
    """KL(of || by) of softened logits, the mean over the images."""
    pairs = zip(of, by, strict=True)
    rows = [
        divergence(probabilities(p, temperature), probabilities(q, temperature)) for p, q in pairs
    ]
    return sum(rows) / len(rows)


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def pearson(x: list[float], y: list[float]) -> float:
    a, b = [v - mean(x) for v in x], [v - mean(y) for v in y]
    lengths = math.sqrt(sum(v * v for v in a)) * math.sqrt(sum(v * v for v in b))
    return sum(v * w for v, w in zip(a, b, strict=True)) / lengths


def columns(rows: Matrix) -> Matrix:
    return [list(column) for column in zip(*rows, strict=True)]


def standardised(rows: Matrix) -> Matrix:
    found = []
    for row in rows:
        std = math.sqrt(sum((z - mean(row)) ** 2 for z in row) / (len(row) - 1))
        found.append([(z - mean(row)) / std for z in row])
    return found


def dkd(student: Matrix, teacher: Matrix) -> float:
    """Equations 1 to 7 of arXiv:2203.08679 at T = 4, alpha = 1 and beta = 8."""
    total = 0.0
    for own, other, true in zip(student, teacher, TARGETS.tolist(), strict=True):
        p, q = (probabilities(row, 4.0) for row in (own, other))
        of_target = divergence([q[true], 1 - q[true]], [p[true], 1 - p[true]])
        rest = [k for k in range(len(p)) if k != true]
        of_others = divergence(
            [q[k] / (1 - q[true]) for k in rest], [p[k] / (1 - p[true]) for k in rest]
        )
        total += 16 * (of_target + 8 * of_others)
    return total / len(student)


def dist(student: Matrix, teacher: Matrix) -> float:
    own, other = ([probabilities(row) for row in rows] for rows in (student, teacher))
    by_image = [pearson(x, y) for x, y in zip(own, other, strict=True)]
    by_class = [pearson(x, y) for x, y in zip(columns(own), columns(other), strict=True)]
    return 2 - mean(by_image) - mean(by_class)


def centred_mse(student: Matrix, teacher: Matrix) -> float:
    squares = []
    for own, other in zip(student, teacher, strict=True):
        shift = mean(own) - mean(other)
        squares += [(z - v - shift) ** 2 for z, v in zip(own, other, strict=True)]
    return mean(squares)


def weak_to_strong(student: Matrix, teacher: Matrix) -> float:
    total = 0.0
    for own, other in zip(student, teacher, strict=True):
        p = probabilities(own)
        weak = -sum(q * math.log(v) for q, v in zip(probabilities(other), p, strict=True))
        total += 0.5 * weak - 0.5 * math.log(max(p))
    return total / len(student)


def ensemble(student: Matrix, teacher: Matrix) -> float:
    both = [
        [(z + v) / 2 for z, v in zip(own, other, strict=True)]
        for own, other in zip(student, teacher, strict=True)
    ]
    return kl(both, student) + kl(both, teacher)


BY_HAND: dict[str, Any] = {
    "kl": lambda s, t: kl(t, s, 5.0),
    "kl_t2": lambda s, t: 16 * kl(t, s, 4.0),
    "centred_mse": centred_mse,
    "standardised_kl": lambda s, t: 4 * kl(standardised(t), standardised(s), 2.0),
    "reverse_kl": lambda s, t: kl(s, t),
    "symmetric_kl": lambda s, t: kl(t, s, 3.0) + kl(s, t, 3.0),
    "mutual": lambda s, t: kl(t, s) + kl(s, t),
    "ensemble": ensemble,
    "dkd": dkd,
    "dist": dist,
    "weak_to_strong": weak_to_strong,
    "mse": lambda s, t: mean(
        [(z - v) ** 2 for a, b in zip(s, t, strict=True) for z, v in zip(a, b, strict=True)]
    ),
}


@pytest.mark.parametrize("name", OF_LOGITS)
def test_it_is_its_equation(name: str) -> None:
    expected = BY_HAND[name](STUDENT.tolist(), TEACHER.tolist())
    tolerance = 1e-6 if name == "standardised_kl" else 1e-12  # its authors add 1e-7 to the std
    assert distill(STUDENT, TEACHER, name).item() == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("name", sorted(set(OF_LOGITS) - {"mutual", "ensemble", "weak_to_strong"}))
def test_its_gradient_is_that_of_finite_differences(name: str) -> None:
    """Those of terms that hold a constant of their own are tested below."""
    both = [z.clone().requires_grad_() for z in (STUDENT, TEACHER)]
    assert torch.autograd.gradcheck(lambda s, t: distill(s, t, name), both)


@pytest.mark.parametrize("name", sorted(set(OF_LOGITS) - {"weak_to_strong"}))
def test_equal_outputs_cost_nothing_and_pull_at_nothing(name: str) -> None:
    both = [STUDENT.clone().requires_grad_() for _ in range(2)]
    term = distill(*both, name)
    assert term.item() == pytest.approx(0, abs=1e-12)
    for gradient in torch.autograd.grad(term, both):
        assert gradient.abs().max() < 1e-9


def gradients(name: str, **options: Any) -> list[torch.Tensor | None]:
    both = [z.clone().requires_grad_() for z in (STUDENT, TEACHER)]
    return list(torch.autograd.grad(distill(*both, name, **options), both, allow_unused=True))


def test_mutual_learning_moves_each_by_the_other_alone() -> None:
    """The gradient of cross-entropy with the other's predictions as constants."""
    own, other = STUDENT.softmax(1), TEACHER.softmax(1)
    for found, expected in zip(gradients("mutual"), (own - other, other - own), strict=True):
        torch.testing.assert_close(found, expected / len(STUDENT))


def test_both_learn_from_their_mean() -> None:
    both = ((STUDENT + TEACHER) / 2).softmax(1)
    for found, logits_of in zip(gradients("ensemble"), (STUDENT, TEACHER), strict=True):
        torch.testing.assert_close(found, (logits_of.softmax(1) - both) / len(STUDENT))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_weak_to_strong_mixes_two_labels(alpha: float) -> None:
    found, other = gradients("weak_to_strong", alpha=alpha)
    sure = torch.nn.functional.one_hot(STUDENT.argmax(1), STUDENT.shape[1])
    target = (1 - alpha) * TEACHER.softmax(1) + alpha * sure
    torch.testing.assert_close(found, (STUDENT.softmax(1) - target) / len(STUDENT))
    assert other is None


@pytest.mark.parametrize("name", sorted(set(OF_LOGITS) - {"mse"}))
def test_a_shift_that_softmax_ignores_costs_nothing(name: str) -> None:
    shifted = distill(STUDENT + 2, TEACHER - 1, name).item()
    assert shifted == pytest.approx(distill(STUDENT, TEACHER, name).item(), rel=1e-9)


@pytest.mark.parametrize("name", [n for n in OF_LOGITS if find_term(n).least_classes > 2])
def test_with_two_classes_it_would_have_no_gradient(name: str) -> None:
    """At most the part between images is left of `dist`, and the true class' part of `dkd`."""
    student, teacher = STUDENT[:, :2].clone().requires_grad_(), TEACHER[:, :2]
    without = {"dkd": {"alpha": 0.0}, "dist": {"gamma": 0.0}}.get(name, {})
    term = find_term(name)(**without)
    loss = term.loss(Outputs(student), Outputs(teacher), TARGETS % 2)
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.abs().max() < 1e-6
    assert term_for(TermSpec(name=name), 2).name == FALLBACK
    assert term_for(TermSpec(name=name), 3).name == name


def test_the_term_that_stands_in_is_told(tmp_path: Path) -> None:
    told = Notes()
    recipe = toy_recipe(distillation="dkd", epochs=1)
    two = recipe.task.model_copy(update={"num_classes": 2})
    with pytest.raises(Exception):  # noqa: B017,PT011 - digits have ten classes: the note comes before
        run(recipe.model_copy(update={"task": two}), device="cpu", out=tmp_path, progress=told)
    assert told.told[0] == (
        "distillation 'dkd' needs 3 classes, and task 'digits' has 2: 'kl_t2' takes its place"
    )


def test_features_are_compared_through_a_learned_map() -> None:
    term = find_term("features")()
    sizes = Sizes(10, 24, (5, 24)), Sizes(10, 12, (5, 12))
    term.tensors = term.create(*sizes, torch.Generator().manual_seed(0))
    assert term.tensors["map"].shape == (12, 24)
    assert term.tensors["map"].abs().max() <= 24**-0.5
    own, other = torch.randn(7, 24), torch.randn(7, 12)
    loss = term.loss(Outputs(STUDENT, own), Outputs(TEACHER, other), TARGETS)
    expected = ((own @ term.tensors["map"].T - other) ** 2).sum() / (7 * 12)
    torch.testing.assert_close(loss, expected)


def test_token_similarities_are_cosines() -> None:
    term = find_term("token_similarity")()
    own, other = torch.randn(3, 5, 24), torch.randn(3, 5, 12)
    loss = term.loss(Outputs(STUDENT, None, own), Outputs(TEACHER, None, other), TARGETS)
    total = 0.0
    for image in range(3):
        for i in range(5):
            for j in range(5):
                pair = [
                    torch.cosine_similarity(z[image, i], z[image, j], dim=0) for z in (own, other)
                ]
                total += (pair[0] - pair[1]).item() ** 2
    assert loss.item() == pytest.approx(total / 75, rel=1e-5)
    assert term.why_not(Sizes(10, 24, (5, 24)), Sizes(10, 12, (5, 12))) == ""
    assert term.why_not(Sizes(10, 24, (5, 24)), Sizes(10, 12, (9, 12))) == (
        "the student has 5 tokens and the teacher 9"
    )


@pytest.mark.parametrize("name", TERMS)
def test_a_run_learns_by_it_and_is_resumed_to_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toy_runs import same_but_for_times, stopped_after, trained

    recipe = toy_recipe(distillation={"name": name}, epochs=2, lr=5e-3)
    whole = trained(recipe, tmp_path / "a")
    folder = stopped_after(1, recipe, tmp_path / "b", monkeypatch)
    run(recipe, device="cpu", out=tmp_path / "b", resume=True)
    assert same_but_for_times(whole, folder)
    assert "distillation_loss" in (whole / "log.jsonl").read_text()


def outputs_of(student: torch.Tensor, teacher: torch.Tensor) -> dict[Any, Outputs]:
    return {"student": Outputs(student), "teacher": Outputs(teacher)}


def learner(**fields: Any) -> Any:
    recipe = toy_recipe(**fields)
    return learner_of(recipe, load_task(recipe.task, img_size=16).train)


def test_the_weight_rises_during_its_warm_up() -> None:
    own = learner(distillation_warmup_epochs=2, distillation_weight=3.0)
    steps = 2 * own.steps_per_epoch
    both, targets = outputs_of(logits(1), logits(2)), TARGETS
    for step in (0, 1, steps - 1, steps, 5 * steps):
        parts = own.losses(both, targets, step=step)
        tasks = parts["student_task_loss"] + parts["teacher_task_loss"]
        factor = (parts["loss"] - tasks) / parts["distillation_loss"]
        assert factor.item() == pytest.approx(3 * min(1, (step + 1) / steps))


def test_the_gate_leaves_the_images_that_the_teacher_gets_wrong() -> None:
    right = TEACHER.argmax(1) == TARGETS
    assert 0 < right.sum() < len(right)
    gated = learner(distillation_gate="teacher_right")
    student = STUDENT.clone().requires_grad_()
    term = gated.losses(outputs_of(student, TEACHER), TARGETS)["distillation_loss"]
    rows = ((STUDENT - TEACHER) ** 2).mean(1) * right
    assert term.item() == pytest.approx((rows.sum() / len(rows)).item())
    (gradient,) = torch.autograd.grad(term, student)
    assert gradient[~right].abs().max() == 0
    assert (gradient[right].abs().sum(1) > 0).all()


def test_the_gate_may_leave_none() -> None:
    gated = learner(distillation_gate="teacher_right")
    wrong = (TEACHER.argmax(1) + 1) % 5
    parts = gated.losses(outputs_of(STUDENT, TEACHER), wrong)
    assert parts["distillation_loss"] == 0
    assert parts["loss"] == parts["student_task_loss"] + parts["teacher_task_loss"]


def log(student: float, teacher: float) -> EpochLog:
    return EpochLog(
        epoch=1,
        lr=0.1,
        loss=1.0,
        student_task_loss=1.0,
        student_train_top1=student,
        teacher_train_top1=teacher,
    )


def test_distillation_ends_once_the_student_is_past_the_teacher() -> None:
    own = learner(distillation_until="teacher")
    both = outputs_of(STUDENT, TEACHER)
    parts = own.losses(both, TARGETS)
    right = (STUDENT.argmax(1) == TARGETS).double().mean().item()
    assert parts["student_train_top1"].item() == pytest.approx(right)
    for epoch, over in (((0.4, 0.5), False), ((0.5, 0.5), False), ((0.6, 0.5), True)):
        own.watch(log(*epoch))
        assert own.surpassed is over
    own.watch(log(0.1, 0.9))
    assert own.surpassed  # for good
    parts = own.losses(both, TARGETS)
    assert parts["distillation_loss"] == 0
    assert parts["loss"] == parts["student_task_loss"] + parts["teacher_task_loss"]


def test_a_run_until_the_teacher_is_resumed_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toy_runs import same_but_for_times, stopped_after, trained

    recipe = toy_recipe(distillation_until="teacher", epochs=4, lr=1e-2)
    whole = trained(recipe, tmp_path / "a")
    text = (whole / "log.jsonl").read_text()
    assert "student_train_top1" in text
    assert '"distillation_loss": 0.0' in text  # the toy student passes within four epochs
    folder = stopped_after(3, recipe, tmp_path / "b", monkeypatch)
    run(recipe, device="cpu", out=tmp_path / "b", resume=True)
    assert same_but_for_times(whole, folder)


@pytest.mark.parametrize(
    "field", ["distillation_warmup_epochs=2", 'distillation_gate="teacher_right"']
)
def test_without_a_term_its_fields_are_refused(field: str) -> None:
    name, _, value = field.partition("=")
    with pytest.raises(RecipeError, match=f"{name} needs a distillation term"):
        toy_recipe(distillation="none", **{name: value.strip('"') if '"' in value else int(value)})


def test_a_pair_with_other_numbers_of_tokens_is_refused_by_name(tmp_path: Path) -> None:
    recipe = toy_recipe(distillation="token_similarity")
    assert recipe.pair.teacher is not None
    other = recipe.pair.teacher.model_copy(update={"img_size": 32})
    pair = recipe.pair.model_copy(update={"teacher": other})
    with pytest.raises(UsageError, match="the student has 5 tokens and the teacher"):
        run(recipe.model_copy(update={"pair": pair}), device="cpu", out=tmp_path)
