"""Average ranks of methods over tasks, with Friedman's test and Nemenyi's critical difference.

Demšar, Journal of Machine Learning Research 7 (2006), 1. On each task the methods are ranked by
their number, 1 for the highest, ties sharing their mean rank. A task is one block, whatever its
number of seeds and images: all of it is about other tasks like these, and seeds that agree add
nothing. Tasks are taken to be independent of each other; those that share images (the two of
dSprites, say) are not quite, so that true differences are somewhat larger.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from idat_zoo.values import Frozen

LEAST_METHODS = 5
"""Of fewer methods, pairs are compared directly."""
LEAST_TASKS = 4
"""Ranks over fewer tasks say next to nothing about other tasks."""
ALPHA = 0.05
DIGITS = 12
"""Numbers that agree to so many decimals are ties: means over seeds differ in the last bits."""


class RankedMethod(Frozen):
    """A method, and its mean rank over the tasks: 1 if it is the best on each."""

    method: str
    rank: float


class Ranks(Frozen):
    """Average ranks, the best first.

    `p` is Friedman's: of ranks so far apart, were all methods alike. Two methods whose ranks differ
    by more than `critical_difference` differ at 0.05, corrected over all pairs (Nemenyi). `alike`
    holds the largest sets of neighbours that do not. `left_out` are methods without a number on
    each of the tasks.
    """

    tasks: tuple[str, ...]
    methods: tuple[RankedMethod, ...]
    p: float
    critical_difference: float
    alike: tuple[tuple[str, ...], ...]
    left_out: tuple[str, ...] = ()


def average_ranks(scores: Mapping[str, Mapping[str, float]]) -> Ranks | None:
    """The ranks of methods by their numbers: method -> task -> number, the higher the better.

    None for fewer than `LEAST_METHODS` methods with a number on every task, or fewer than
    `LEAST_TASKS` tasks.
    """
    tasks = tuple(dict.fromkeys(task for own in scores.values() for task in own))
    whole = [method for method, own in scores.items() if len(own) == len(tasks)]
    if len(whole) < LEAST_METHODS or len(tasks) < LEAST_TASKS:
        return None
    table = np.array([[scores[method][task] for method in whole] for task in tasks])
    ranks = _ranks(table)
    mean = ranks.mean(0)
    order = [int(place) for place in np.argsort(mean, kind="stable")]
    methods = tuple(RankedMethod(method=whole[k], rank=float(mean[k])) for k in order)
    difference = critical_difference(len(whole), len(tasks))
    return Ranks(
        tasks=tasks,
        methods=methods,
        p=friedman_p(table),
        critical_difference=difference,
        alike=_alike(methods, difference),
        left_out=tuple(method for method in scores if method not in whole),
    )


def _ranks(table: np.ndarray) -> np.ndarray:
    """The ranks of numbers `[T, M]` of M methods on T tasks, by task."""
    from scipy.stats import rankdata

    ranks: np.ndarray = rankdata(-table.round(DIGITS), axis=1)
    return ranks


def friedman_p(table: np.ndarray) -> float:
    """Friedman's p-value of numbers `[T, M]`, by the chi-squared approximation, ties corrected.

    It is 1 if the methods are equal on every task.
    """
    from scipy.stats import friedmanchisquare

    rounded = table.round(DIGITS)
    if (rounded == rounded[:, :1]).all():
        return 1.0
    return float(friedmanchisquare(*rounded.T).pvalue)


def critical_difference(methods: int, tasks: int) -> float:
    """Nemenyi's critical difference of two average ranks at 0.05, over all pairs of methods."""
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - ALPHA, methods, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(methods * (methods + 1) / (6 * tasks))


def _alike(methods: Sequence[RankedMethod], difference: float) -> tuple[tuple[str, ...], ...]:
    """The runs of neighbours within the critical difference, without those inside longer ones."""
    found: list[tuple[str, ...]] = []
    reached = 0
    for start, first in enumerate(methods):
        run = [own.method for own in methods[start:] if own.rank - first.rank <= difference]
        if len(run) > 1 and start + len(run) > reached:
            found.append(tuple(run))
        reached = max(reached, start + len(run))
    return tuple(found)
