"""The difference of two recipes on one task, from the predictions of their runs."""

import statistics
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from idat_zoo.intervals import Interval, unpaired_interval
from idat_zoo.report.difference import difference_of, seed_variances
from idat_zoo.report.predictions import read_classes
from idat_zoo.report.rows import Group
from idat_zoo.results import Result
from idat_zoo.values import Frozen


class Contrast(Frozen):
    """A gain in top-1, a fraction, with its 95 % interval.

    Paired, it is over the same images with the same seeds, and covers other images, and other seeds
    if there are several. Not paired, it is of two means, and covers other images alone.
    """

    gain: float
    interval: Interval
    paired: bool

    @property
    def is_told(self) -> bool:
        """Whether the two can be told apart: 0 is outside the interval."""
        low, high = self.interval
        return not low <= 0 <= high


Answers = Mapping[int, tuple[np.ndarray, np.ndarray]]
"""Seed -> the indices of the test images `[N]`, and whether each is classified correctly `[N]`."""


def answers_of(group: Group) -> Answers:
    """Which images the student of each run classifies correctly, for the runs that stored it."""
    found = {}
    for seed, run in group.by_seed().items():
        try:
            found[seed] = _right(*run)
        except ValueError:
            continue
    return found


def _right(path: Path, result: Result) -> tuple[np.ndarray, np.ndarray]:
    classes = read_classes(path, result)
    return classes["index"], classes["student"] == classes["target"]


def contrast(first: Group, second: Group, answers: tuple[Answers, Answers]) -> Contrast:
    """Top-1 of the first recipe minus that of the second, on the task of both."""
    ours, theirs = answers
    seeds = sorted(ours.keys() & theirs.keys())
    same = [seed for seed in seeds if np.array_equal(ours[seed][0], theirs[seed][0])]
    if same and len({len(ours[seed][0]) for seed in same}) == 1:
        rows = [ours[seed][1].astype(np.int8) - theirs[seed][1].astype(np.int8) for seed in same]
        differences = np.stack(rows)
        variance, freedom = seed_variances([differences])
        found = difference_of(differences, seed_variance=variance, freedom=freedom)
        return Contrast(gain=found.gain, interval=found.interval, paired=True)
    tops = _mean_top1(first), _mean_top1(second)
    images = min(group.results[0][1].student.count for group in (first, second))
    return Contrast(gain=tops[0] - tops[1], interval=unpaired_interval(*tops, images), paired=False)


def _mean_top1(group: Group) -> float:
    return statistics.fmean(result.top1 for _, result in group.results)
