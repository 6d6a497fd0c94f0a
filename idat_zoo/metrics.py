"""Metrics of a network on a split, as results store them, and how numbers are written for people.

They are computed in `scoring`, which loads torch; reading results does not.
"""

from typing import Annotated

from pydantic import Strict

from idat_zoo.values import Frozen


def percent(fraction: float) -> str:
    """A fraction in per cent: 0.9412 -> `94.1 %`."""
    return f"{100 * fraction:.1f} %"


def interval(bounds: tuple[float, float]) -> str:
    """The bounds of a 95 % interval in per cent: `[93.0, 95.2]`."""
    low, high = bounds
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


class ClassScore(Frozen):
    """Precision, recall and F1 of one class, as fractions, and its number of test images.

    The index of the class is its place in `Metrics.per_class`. `name` is None where the run does
    not know the names of its classes.
    """

    name: str | None = None
    precision: float
    recall: float
    f1: float
    count: int


class Metrics(Frozen):
    """The metrics of one network on one split. Accuracies and errors are fractions."""

    top1: float
    top1_interval: Annotated[tuple[float, float], Strict(False)]
    balanced_accuracy: float
    calibration_error: float
    count: int
    per_class: Annotated[tuple[ClassScore, ...], Strict(False)]
    confusion: Annotated[tuple[tuple[int, ...], ...], Strict(False)]
