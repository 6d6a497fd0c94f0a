"""The size of a gain over tasks, measured by how much it varies from task to task.

It is the mean gain divided by its standard deviation over the tasks (Cohen's d of paired
differences): 1 means that the gain is as large as its spread. Its interval is a bootstrap over the
tasks (BCa; Efron, Journal of the American Statistical Association 82 (1987), 171), so it covers
other tasks like these, which are taken to be independent. A task counts once, with the mean of its
seeds. The interval is somewhat too narrow: with an effect of 1 and normal gains it covers it in 89
of 100 studies of 10 tasks, and 91 of 19 (simulated); under `LEAST_TASKS` tasks there is none.
"""

import warnings
from collections.abc import Sequence

import numpy as np

from idat_zoo.intervals import Interval
from idat_zoo.values import Frozen

LEAST_TASKS = 10
RESAMPLES = 9999


class Effect(Frozen):
    """The mean gain in standard deviations over tasks, with a 95 % interval over tasks."""

    size: float
    interval: Interval | None = None


def effect_over_tasks(gains: Sequence[float]) -> Effect | None:
    """The effect of gains, one a task; None where they do not vary, so that nothing measures it."""
    if len(gains) < 2 or np.ptp(gains) == 0:
        return None
    return Effect(
        size=float(_size(np.asarray(gains))),
        interval=_bootstrap(gains) if len(gains) >= LEAST_TASKS else None,
    )


def _size(gains: np.ndarray, axis: int = -1) -> np.ndarray:
    """Effects; of gains that are all equal it is without bound, and 0 if they are all 0."""
    mean, alike = np.mean(gains, axis=axis), np.ptp(gains, axis=axis) == 0
    spread = np.where(alike, 0.0, np.std(gains, axis=axis, ddof=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        size: np.ndarray = np.where(alike & (mean == 0), 0.0, mean / spread)
    return size


def _bootstrap(gains: Sequence[float]) -> Interval | None:
    """The BCa interval; None where gains are so alike that an end of it has no bound."""
    from scipy.stats import bootstrap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is said of such gains
        found = bootstrap(
            (np.asarray(gains),),
            _size,
            vectorized=True,
            n_resamples=RESAMPLES,
            method="BCa",
            rng=np.random.default_rng(0),
        ).confidence_interval
    ends = float(found.low), float(found.high)
    return ends if np.isfinite(ends).all() else None
