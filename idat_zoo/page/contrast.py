"""The differences of two methods, task by task, from the predictions of their runs.

Shape letters: S seeds, N images.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from idat_zoo.intervals import Interval, unpaired_interval
from idat_zoo.page.entries import Entry
from idat_zoo.report.difference import difference_of, seed_variances
from idat_zoo.report.predictions import read_classes
from idat_zoo.results import Result
from idat_zoo.values import Frozen


class Contrast(Frozen):
    """A gain in top-1, a fraction, with its 95 % interval.

    Paired, it is over the same images with the same seeds, and covers other images, and other seeds
    if there are several: their variance is pooled over the tasks of both methods, and assumed to be
    the same on each. Not paired, it is of two means, and covers other images alone.
    """

    gain: float
    interval: Interval
    paired: bool

    @property
    def is_told(self) -> bool:
        """Whether the two can be told apart: 0 is outside the interval."""
        low, high = self.interval
        return not low <= 0 <= high


class Contrasts:
    """The contrasts of any two methods among some entries; predictions are read once."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = {(entry.method, entry.task): entry for entry in entries}
        self._tasks = tuple(dict.fromkeys(entry.task for entry in entries))
        self._answers = cache(_answers_of)
        self.between = cache(self._between)

    def _between(self, first: str, second: str) -> Mapping[str, Contrast]:
        """Top-1 of the first method minus that of the second, on each task that both have."""
        pairs = {
            task: (self._entries[first, task], self._entries[second, task])
            for task in self._tasks
            if {(first, task), (second, task)} <= self._entries.keys()
        }
        paired = {task: self._differences(*pair) for task, pair in pairs.items()}
        known = [differences for differences in paired.values() if differences is not None]
        variance, freedom = seed_variances(known)
        found = {}
        for task, differences in paired.items():
            if differences is None:
                found[task] = _unpaired(*pairs[task])
                continue
            one = difference_of(differences, seed_variance=variance, freedom=freedom)
            found[task] = Contrast(gain=one.gain, interval=one.interval, paired=True)
        return found

    def _differences(self, first: Entry, second: Entry) -> np.ndarray | None:
        """The differences in correctness `[S, N]` over the seeds of both, if there are any."""
        ours, theirs = self._answers(first), self._answers(second)
        rows = [
            ours[seed][1].astype(np.int8) - theirs[seed][1].astype(np.int8)
            for seed in sorted(ours.keys() & theirs.keys())
            if np.array_equal(ours[seed][0], theirs[seed][0])
        ]
        return np.stack(rows) if rows and len({len(row) for row in rows}) == 1 else None


def _answers_of(entry: Entry) -> Mapping[int, tuple[np.ndarray, np.ndarray]]:
    """Seed -> the indices of the test images `[N]`, and whether the student is right on each `[N]`.

    Runs that have not stored their predictions are left out.
    """
    found = {}
    for seed, run in entry.group.by_seed().items():
        try:
            found[seed] = _right(*run)
        except ValueError:
            continue
    return found


def _right(path: Path, result: Result) -> tuple[np.ndarray, np.ndarray]:
    classes = read_classes(path, result)
    return classes["index"], classes["student"] == classes["target"]


def _unpaired(first: Entry, second: Entry) -> Contrast:
    tops = first.row.top1.mean, second.row.top1.mean
    images = min(first.row.images, second.row.images)
    interval = unpaired_interval(*tops, images)
    return Contrast(gain=tops[0] - tops[1], interval=interval, paired=False)
