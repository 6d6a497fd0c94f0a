"""Scoring: logits and true classes -> Metrics. Loads torch.

Shape letters: N images, K classes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from idat_zoo.intervals import wilson_interval
from idat_zoo.metrics import ClassScore, Metrics

CALIBRATION_BINS = 15


def score(
    logits: Float32[Tensor, "N K"], targets: Int64[Tensor, "N"], class_names: Sequence[str] = ()
) -> Metrics:
    """Top-1 with its 95 % Wilson interval, balanced accuracy, calibration error, tables by class.

    Balanced accuracy is the mean recall of the classes that occur; calibration error is the
    expected calibration error of Guo et al., arXiv:1706.04599, in 15 bins of equal width.
    """
    classes = logits.shape[1]
    names: Sequence[str | None] = class_names or [None] * classes
    predicted = logits.argmax(dim=1).numpy()
    truth = targets.numpy()
    confusion = np.bincount(truth * classes + predicted, minlength=classes**2)
    confusion = confusion.reshape(classes, classes)
    hits, of_class, as_class = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    columns = (
        _share(hits, as_class),
        _share(hits, of_class),
        _share(2 * hits, of_class + as_class),
        of_class,
    )
    per_class = tuple(
        ClassScore(name=name, precision=float(p), recall=float(r), f1=float(f), count=int(n))
        for name, p, r, f, n in zip(names, *columns, strict=True)
    )
    correct = int((predicted == truth).sum())
    return Metrics(
        top1=correct / len(truth),
        top1_interval=wilson_interval(correct, len(truth)),
        balanced_accuracy=float(np.mean([c.recall for c in per_class if c.count])),
        calibration_error=_calibration_error(logits, targets),
        count=len(truth),
        per_class=per_class,
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
    )


def _share(part: Int64[np.ndarray, "K"], whole: Int64[np.ndarray, "K"]) -> np.ndarray:
    """The quotients, 0 where the whole is 0."""
    quotients = np.zeros(len(part))
    np.divide(part, whole, out=quotients, where=whole > 0)
    return quotients


def _calibration_error(logits: Tensor, targets: Tensor) -> float:
    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
    correct = (predicted == targets).double()
    bins = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    gaps = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)
    gaps.index_add_(0, bins, correct - confidence)
    return float(gaps.abs().sum() / len(targets))
