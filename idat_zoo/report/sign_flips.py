"""A sign-flip permutation test of gains over tasks and seeds.

If two settings are alike, each gain (the number of one minus that of the other) is as likely as its
negative. The p-value is the share of all choices of signs whose mean gain is as far from 0 as the
one found. No distribution is assumed, but that gains are symmetric about 0 and independent, were
there no difference.

Shape letters: U units whose signs are flipped.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

Unit = Literal["tasks", "seeds"]
DIGITS = 12
"""Gains that agree to so many decimals are equal."""
RESAMPLES = 9999
"""Choices of signs that are drawn where there are more; up to then all are counted."""


def sign_flip_p(gains: Sequence[Sequence[float]], *, unit: Unit) -> float:
    """The two-sided p-value of the mean over tasks of the mean gain over seeds, one list a task.

    With `unit = "tasks"` the sign of a task's mean is flipped, and p is about other tasks like
    these. With `unit = "seeds"` the sign of each seed's gain is flipped within its task: p is about
    other seeds on these tasks and test images, and says nothing about other tasks. Gains of a task
    that are equal are flipped together, as one seed: seeds that agree exactly are not evidence of
    their own. One unit alone has p = 1, and U units at least 2 / 2**U.
    """
    from scipy.stats import permutation_test

    values, weights = _units([list(own) for own in gains if len(own)], unit)
    if len(values) < 2 or not values.any():
        return 1.0

    def mean_gain(signed: np.ndarray, axis: int = -1) -> np.ndarray:
        mean: np.ndarray = np.sum(signed * weights, axis=axis)
        return mean

    found = permutation_test(
        (values,),
        mean_gain,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return min(1.0, float(found.pvalue))


def _units(gains: Sequence[Sequence[float]], unit: Unit) -> tuple[np.ndarray, np.ndarray]:
    """The values that are flipped and their weights in the mean, `[U]` each."""
    if unit == "tasks":
        means = np.array([np.mean(own) for own in gains])
        return means, np.full(len(gains), 1 / max(1, len(gains)))
    units = [
        (gain, count / len(own) / len(gains))
        for own in gains
        for gain, count in Counter(round(gain, DIGITS) for gain in own).items()
    ]
    return np.array([gain for gain, _ in units]), np.array([weight for _, weight in units])
