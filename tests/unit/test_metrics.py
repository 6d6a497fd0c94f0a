"""Metrics against cases worked out by hand, and laws that hold for any logits."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text
from scipy.optimize import brentq, minimize_scalar
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from idat_zoo.cli import present
from idat_zoo.intervals import Z95, paired_interval, unpaired_interval, wilson_interval
from idat_zoo.metrics import Metrics
from idat_zoo.report.predictions import paired_counts
from idat_zoo.scoring import score


def logits_for(predicted: list[int], classes: int, *, confidence: float = 1.0) -> torch.Tensor:
    """Logits whose softmax is `confidence` at the predicted class, the rest shared equally."""
    rest = (1 - confidence) / (classes - 1)
    shares = torch.full((len(predicted), classes), rest, dtype=torch.float64)
    shares[torch.arange(len(predicted)), predicted] = confidence
    return shares.clamp(min=1e-30).log().float()


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [  # statsmodels 0.14 proportion_confint(method="wilson"); 15/148 is Newcombe 1998's example
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilsons_interval_has_the_published_values(
    correct: int, count: int, low: float, high: float
) -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3, to its four digits
    assert wilson_interval(correct, count) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_proportion_and_stays_a_proportion(counts: tuple[int, int]) -> None:
    correct, count = counts
    low, high = wilson_interval(correct, count)
    assert 0 <= low <= correct / count <= high <= 1
    assert low < high
    assert wilson_interval(count - correct, count) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, 3 * n), st.just(n))))
def test_the_interval_at_a_mean_of_three_seeds_holds_it_and_narrows_with_images(
    case: tuple[int, int],
) -> None:
    correct, count = case
    low, high = wilson_interval(correct / 3, count)
    assert 0 <= low <= correct / 3 / count <= high <= 1
    lower, higher = wilson_interval(2 * correct / 3, 2 * count)
    assert higher - lower < high - low


def test_a_case_worked_out_by_hand() -> None:
    targets = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    metrics = score(logits_for([0, 0, 0, 1, 1, 0, 1, 2], 4), targets)
    assert metrics.top1 == 5 / 8
    assert metrics.count == 8
    assert metrics.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2 + 1 / 2) / 3)
    assert metrics.confusion == ((3, 1, 0, 0), (1, 1, 0, 0), (0, 1, 1, 0), (0, 0, 0, 0))
    first, second, third, absent = metrics.per_class
    assert (first.precision, first.recall, first.f1, first.count) == (3 / 4, 3 / 4, 3 / 4, 4)
    assert (second.precision, second.recall, second.count) == (1 / 3, 1 / 2, 2)
    assert second.f1 == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert (third.precision, third.recall, third.count) == (1, 1 / 2, 2)
    assert (absent.precision, absent.recall, absent.f1, absent.count) == (0, 0, 0, 0)
    assert metrics.top1_interval == wilson_interval(5, 8)


def test_classes_are_named_where_their_names_are_known() -> None:
    logits, targets = logits_for([0, 1], 3), torch.tensor([0, 2])
    named = score(logits, targets, ("cat", "dog", "[red]eel"))
    assert [c.name for c in named.per_class] == ["cat", "dog", "[red]eel"]
    plain = score(logits, targets)
    assert [c.name for c in plain.per_class] == [None] * 3
    unnamed = [c.model_copy(update={"name": None}) for c in named.per_class]
    assert plain == named.model_copy(update={"per_class": tuple(unnamed)})


# What people see of them


def shown(capsys: pytest.CaptureFixture[str], metrics: Metrics) -> list[list[str]]:
    """The tables that are printed, each its lines."""
    present.print_metrics(metrics)
    return [part.splitlines() for part in capsys.readouterr().out.split("\n\n")]


def confused(names: Sequence[str], classes: int, right: int = 0) -> Metrics:
    """Every class once taken for the next, and each so many times right."""
    truth = [k for k in range(classes) for _ in range(right + 1)]
    said = [k if i % (right + 1) else (k + 1) % classes for i, k in enumerate(truth)]
    return score(logits_for(said, classes), torch.tensor(truth), names)


def test_tables_name_the_classes_beside_their_indices(capsys: pytest.CaptureFixture[str]) -> None:
    _, table, matrix = shown(capsys, confused(("1", "10", "[/b]two\nlines"), 3, right=1))
    assert [line.split()[:2] for line in table] == [
        ["class", "name"],
        ["0", "1"],
        ["1", "10"],
        ["2", "[/b]two"],
    ]
    assert matrix[1].split() == ["0", "1", "2"]
    assert matrix[2].split() == ["0", "1", "1", "1", "0"]
    assert matrix[4].split() == ["2", "[/b]two", "lines", "1", "0", "1"]
    assert shown(capsys, confused((), 3))[2][2].split() == ["0", "0", "1", "0"]


@pytest.mark.parametrize("columns", [80, 120])
def test_a_matrix_beside_long_names_keeps_its_numbers_and_the_terminals_width(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    names = [f"[red]{k} " + "犬" * 60 for k in range(10)]
    _, table, matrix = shown(capsys, confused(names, 10, right=99))
    assert max(Text.from_ansi(line).cell_len for line in [*table, *matrix]) <= columns
    rows = [line.split() for line in matrix[2:]]
    assert [row[0] for row in rows] == [str(k) for k in range(10)]
    assert all(row[1] == f"[red]{k}" and "…" in "".join(row) for k, row in enumerate(rows))
    assert [row[-10:][k] for k, row in enumerate(rows)] == ["99"] * 10


def test_where_the_matrix_is_too_wide_what_is_confused_most_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"kind {k}" for k in range(30)]
    mistakes = shown(capsys, confused(names, 30))[2]
    assert mistakes[0] == "confused most often"
    assert mistakes[2].split() == ["1", "0", "kind", "0", "1", "kind", "1"]
    assert len(mistakes) == 12
    assert len(shown(capsys, confused((), 30, right=1))[2]) == 12
    assert len(shown(capsys, score(logits_for([0, 1], 30), torch.tensor([0, 1])))) == 2
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert shown(capsys, confused(names[:20], 20, right=9))[2][0] == "confused most often"


def test_a_class_that_never_occurs_does_not_lower_balanced_accuracy() -> None:
    targets = torch.tensor([0, 1])
    assert score(logits_for([0, 1], 5), targets).balanced_accuracy == 1


@pytest.mark.parametrize(
    ("confidence", "right", "expected"),
    [(1.0, 10, 0.0), (1.0, 7, 0.3), (0.9, 9, 0.0), (0.9, 5, 0.4), (0.6, 10, 0.4)],
)
def test_calibration_error_is_the_gap_of_one_bin(
    confidence: float, right: int, expected: float
) -> None:
    targets = torch.tensor([0] * right + [1] * (10 - right))
    logits = logits_for([0] * 10, 3, confidence=confidence)
    assert score(logits, targets).calibration_error == pytest.approx(expected, abs=1e-6)


def test_calibration_errors_of_two_bins_do_not_cancel() -> None:
    sure, unsure = (logits_for([0] * 5, 3, confidence=c) for c in (0.9, 0.5))
    targets = torch.tensor([0, 0, 1, 1, 1, *[0] * 5])  # 40 % right at 0.9, all right at 0.5
    error = score(torch.cat([sure, unsure]), targets).calibration_error
    assert error == pytest.approx((5 * 0.5 + 5 * 0.5) / 10, abs=1e-6)


def test_images_that_only_one_of_two_is_right_about_are_counted() -> None:
    targets = torch.zeros(10, dtype=torch.long)
    first = logits_for([0] * 8 + [1] * 2, 2)
    second = logits_for([0] * 5 + [1] * 4 + [0], 2)
    first, second, targets = first.argmax(1).numpy(), second.argmax(1).numpy(), targets.numpy()
    assert paired_counts(first, second, targets) == (3, 1)
    assert paired_counts(second, first, targets) == (1, 3)
    assert paired_counts(first, first, targets) == (0, 0)


@pytest.mark.parametrize(("gained", "lost", "count"), [(1, 7, 21), (10, 4, 50), (0, 3, 40)])
def test_the_paired_interval_ends_where_a_score_test_refuses(
    gained: int, lost: int, count: int
) -> None:
    # Tango's definition with the likelihood maximised by numbers. 1, 7 of 21 is the example of
    # Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014).
    def score_at(difference: float) -> float:
        def unlikeliness(lost_share: float) -> float:
            rest = count - gained - lost
            shares = (lost_share + difference, lost_share, 1 - 2 * lost_share - difference)
            return -sum(
                n * math.log(share) for n, share in zip((gained, lost, rest), shares, strict=True)
            )

        bounds = (max(0.0, -difference) + 1e-13, (1 - difference) / 2 - 1e-13)
        best = minimize_scalar(unlikeliness, bounds=bounds, options={"xatol": 1e-13}).x
        variance = count * (2 * best + difference * (1 - difference))
        return (gained - lost - count * difference) / math.sqrt(variance)

    middle = (gained - lost) / count
    low = brentq(lambda at: score_at(at) - Z95, -0.999, middle)
    high = brentq(lambda at: score_at(at) + Z95, middle, 0.999)
    assert paired_interval(gained, lost, count) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize("count", [1, 21, 797, 50_000])
def test_two_that_never_disagree_are_not_certain_to_be_equal(count: int) -> None:
    half = Z95**2 / (count + Z95**2)  # about the rule of three, 3 / N, to each side
    assert paired_interval(0, 0, count) == pytest.approx((-half, half), rel=1e-9)


@given(
    st.integers(1, 5000).flatmap(
        lambda n: st.tuples(st.just(n), st.integers(0, n).flatmap(lambda b: pairs_of(b, n)))
    )
)
def test_the_paired_interval_holds_the_difference_and_turns_its_sign(
    case: tuple[int, tuple[int, int]],
) -> None:
    count, (gained, lost) = case
    low, high = paired_interval(gained, lost, count)
    assert -1 <= low <= (gained - lost) / count <= high <= 1
    assert low < high
    assert paired_interval(lost, gained, count) == pytest.approx((-high, -low), abs=1e-9)
    lower, higher = paired_interval(2 * gained, 2 * lost, 2 * count)
    assert higher - lower < high - low


def pairs_of(gained: int, count: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.just(gained), st.integers(0, count - gained))


def test_newcombes_interval_has_the_values_of_statsmodels() -> None:
    # statsmodels 0.15 confint_proportions_2indep(method="newcomb"), where counts are equal
    assert unpaired_interval(0.9, 0.3, 10) == pytest.approx((0.1705, 0.8090), abs=6e-5)
    assert unpaired_interval(1.0, 0.0, 10) == pytest.approx((0.6075, 1.0), abs=6e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.just(n), *[st.integers(0, n)] * 2)))
def test_the_unpaired_interval_holds_the_difference(case: tuple[int, int, int]) -> None:
    count, first, second = case
    low, high = unpaired_interval(first / count, second / count, count)
    assert low <= first / count - second / count <= high
    assert low < high


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(2, 6))
def test_metrics_are_fractions_and_no_order_of_images_changes_them(
    seed: int, count: int, classes: int
) -> None:
    source = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, classes, generator=source)
    targets = torch.randint(classes, (count,), generator=source)
    metrics = score(logits, targets)
    low, high = metrics.top1_interval
    assert 0 <= low <= metrics.top1 <= high <= 1
    assert 0 <= metrics.balanced_accuracy <= 1
    assert 0 <= metrics.calibration_error <= 1
    assert sum(map(sum, metrics.confusion)) == sum(c.count for c in metrics.per_class) == count
    assert sum(metrics.confusion[i][i] for i in range(classes)) / count == metrics.top1
    order = torch.randperm(count, generator=source)
    shuffled = score(logits[order], targets[order])
    gap = metrics.calibration_error - shuffled.calibration_error  # a sum in another order
    assert abs(gap) < 1e-12
    fields = {"calibration_error": 0.0}
    assert shuffled.model_copy(update=fields) == metrics.model_copy(update=fields)


@given(
    st.integers(2, 12).flatmap(
        lambda classes: st.tuples(
            st.just(classes),
            st.lists(
                st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1
            ),
        )
    )
)
def test_tables_by_class_are_scikit_learns_to_the_bit(
    case: tuple[int, list[tuple[int, int]]],
) -> None:
    classes, pairs = case
    predicted, truth = [first for first, _ in pairs], [second for _, second in pairs]
    found = score(logits_for(predicted, classes), torch.tensor(truth))
    labels = range(classes)
    columns = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0.0)
    rows = [(one.precision, one.recall, one.f1, one.count) for one in found.per_class]
    assert rows == list(zip(*(column.tolist() for column in columns), strict=True))
    matrix = confusion_matrix(truth, predicted, labels=labels)
    assert found.confusion == tuple(map(tuple, matrix.tolist()))
