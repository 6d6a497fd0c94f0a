"""Metrics and intervals: what logits and classes say of a network.

Shape letters: N images, K classes.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float32, Int64
from pydantic import Strict
from torch import Tensor

from idat_zoo.recipe import Frozen

CALIBRATION_BINS = 15
Z95 = 1.959963984540054
BISECTIONS = 60  # halve an interval of 2 down to the last bit of a double

Interval = tuple[float, float]


def percent(fraction: float) -> str:
    """0.9412 -> 94.1 %."""
    return f"{100 * fraction:.1f} %"


def interval(bounds: tuple[float, float]) -> str:
    """Bounds of a 95 % interval, in per cent."""
    low, high = bounds
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


class ClassScore(Frozen):
    """How one class fares: fractions, and how many test images it has.

    Its index is its place in `Metrics.per_class`; `name` is there where the run knows it.
    """

    name: str | None = None
    precision: float
    recall: float
    f1: float
    count: int


class Metrics(Frozen):
    """What a split says of a network. Fractions throughout."""

    top1: float
    top1_interval: Annotated[tuple[float, float], Strict(False)]
    balanced_accuracy: float
    calibration_error: float
    count: int
    per_class: Annotated[tuple[ClassScore, ...], Strict(False)]
    confusion: Annotated[tuple[tuple[int, ...], ...], Strict(False)]


def score(
    logits: Float32[Tensor, "N K"], targets: Int64[Tensor, "N"], class_names: Sequence[str] = ()
) -> Metrics:
    """Top-1 with its 95 % Wilson interval, balanced accuracy, calibration error, tables by class.

    Balanced accuracy is the mean recall of the classes that occur; calibration error is the
    expected calibration error of Guo et al., arXiv:1706.04599, in 15 bins of equal width.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    labels = np.arange(logits.shape[1])
    names: Sequence[str | None] = class_names or [None] * len(labels)
    predicted = logits.argmax(dim=1).numpy()
    truth = targets.numpy()
    columns = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0.0)
    per_class = tuple(
        ClassScore(name=name, precision=float(p), recall=float(r), f1=float(f), count=int(n))
        for name, p, r, f, n in zip(names, *columns, strict=True)
    )
    correct = int((predicted == truth).sum())
    matrix = confusion_matrix(truth, predicted, labels=labels)
    return Metrics(
        top1=correct / len(truth),
        top1_interval=wilson_interval(correct, len(truth)),
        balanced_accuracy=float(np.mean([c.recall for c in per_class if c.count])),
        calibration_error=_calibration_error(logits, targets),
        count=len(truth),
        per_class=per_class,
        confusion=tuple(tuple(int(n) for n in row) for row in matrix),
    )


def wilson_interval(correct: int | float, count: int) -> Interval:
    """The 95 % interval of a proportion (Wilson 1927), which stays inside [0, 1].

    `correct` of `count`; a mean over seeds need not be a whole number.
    """
    share, z2 = correct / count, Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    low = centre - half if correct else 0.0  # exact where rounding would leave the share outside
    high = centre + half if correct < count else 1.0
    return low, high


def paired_counts(first: Tensor, second: Tensor, targets: Tensor) -> tuple[int, int]:
    """On how many images `first` alone is right, and `second` alone. Logits `[N, K]`."""
    right, other = first.argmax(1) == targets, second.argmax(1) == targets
    return int((right & ~other).sum()), int((other & ~right).sum())


def paired_interval(gained: int | float, lost: int | float, count: int) -> Interval:
    """The 95 % interval of a difference between two proportions of the same images.

    `gained` and `lost` are the images that the first alone and the second alone is right about,
    or their means over seeds. It is the score interval of Tango, Statistics in Medicine 17 (1998),
    891: every difference that a score test does not refuse. Two that never disagree have one of
    z^2 / (N + z^2) to each side, where the normal interval of the images' differences has no width.
    """
    difference = (gained - lost) / count

    def is_refused(other: float) -> bool:
        b = (2 * count - gained + lost) * other - gained - lost
        root = math.sqrt(max(b * b + 8 * count * lost * other * (1 - other), 0.0))
        lost_share = (root - b) / (4 * count)  # the likeliest, were that the difference
        variance = count * (2 * lost_share + other * (1 - other))
        return (gained - lost - count * other) ** 2 > Z95**2 * max(variance, 0.0)

    def end(refused: float) -> float:
        kept = difference
        for _ in range(BISECTIONS):
            middle = (kept + refused) / 2
            kept, refused = (kept, middle) if is_refused(middle) else (middle, refused)
        return refused

    return end(-1.0), end(1.0)


def unpaired_interval(first: float, second: float, count: int) -> Interval:
    """The 95 % interval of a difference between two proportions, each of `count` images of its own.

    From their Wilson intervals: Newcombe, Statistics in Medicine 17 (1998), 873, method 10. Where
    the images are the same, it is wider than it would have to be.
    """
    low, high = wilson_interval(first * count, count)
    other_low, other_high = wilson_interval(second * count, count)
    difference = first - second
    return (
        difference - math.hypot(first - low, other_high - second),
        difference + math.hypot(high - first, second - other_low),
    )


def _calibration_error(logits: Tensor, targets: Tensor) -> float:
    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
    correct = (predicted == targets).double()
    bins = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    gaps = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)
    gaps.index_add_(0, bins, correct - confidence)
    return float(gaps.abs().sum() / len(targets))
