"""Metrics and intervals: what logits and classes say of a network.

Shape letters: N images, K classes.
"""

import math
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float32, Int64
from pydantic import Strict
from torch import Tensor

from idat_zoo.recipe import Frozen

CALIBRATION_BINS = 15
Z95 = 1.959963984540054


def percent(fraction: float) -> str:
    """0.9412 -> 94.1 %."""
    return f"{100 * fraction:.1f} %"


def interval(bounds: tuple[float, float]) -> str:
    """Bounds of a 95 % interval, in per cent."""
    low, high = bounds
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


class ClassScore(Frozen):
    """How one class fares: fractions, and how many test images it has."""

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


def score(logits: Float32[Tensor, "N K"], targets: Int64[Tensor, "N"]) -> Metrics:
    """Top-1 with its 95 % Wilson interval, balanced accuracy, calibration error, tables by class.

    Balanced accuracy is the mean recall of the classes that occur; calibration error is the
    expected calibration error of Guo et al., arXiv:1706.04599, in 15 bins of equal width.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    labels = np.arange(logits.shape[1])
    predicted = logits.argmax(dim=1).numpy()
    truth = targets.numpy()
    columns = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0.0)
    per_class = tuple(
        ClassScore(precision=float(p), recall=float(r), f1=float(f), count=int(n))
        for p, r, f, n in zip(*columns, strict=True)
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


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927), which stays inside [0, 1]."""
    share, z2 = correct / count, Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    low = centre - half if correct else 0.0  # exact where rounding would leave the share outside
    high = centre + half if correct < count else 1.0
    return low, high


def paired_difference(first: Tensor, second: Tensor, targets: Tensor) -> tuple[float, float, float]:
    """Top-1 of `first` minus `second` on the same images, with its 95 % interval.

    Logits `[N, K]` each. The interval is the normal one of the mean of the images' differences
    (+1, 0, -1), which counts only images on which the two disagree.
    """
    difference = (first.argmax(1) == targets).double() - (second.argmax(1) == targets).double()
    mean = difference.mean().item()
    half = Z95 * difference.std(correction=1).item() / math.sqrt(len(targets))
    return mean, mean - half, mean + half


def _calibration_error(logits: Tensor, targets: Tensor) -> float:
    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
    correct = (predicted == targets).double()
    bins = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    gaps = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)
    gaps.index_add_(0, bins, correct - confidence)
    return float(gaps.abs().sum() / len(targets))
