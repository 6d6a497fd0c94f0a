"""The comparison of two runs, or of two groups of runs, on the tasks that both have.

The runs of each seed are compared image by image; two single runs also with different seeds. Of a
task, either side has one recipe.

Shape letters: S seeds, N images.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from idat_zoo.errors import UsageError
from idat_zoo.intervals import Interval
from idat_zoo.report.difference import Difference, difference_of, seed_variances
from idat_zoo.report.effect import Effect, effect_over_tasks
from idat_zoo.report.fields import ReadOptions, class_options
from idat_zoo.report.predictions import paired_counts, read_classes
from idat_zoo.report.rows import Group, group_results, over_seeds
from idat_zoo.report.sign_flips import sign_flip_p
from idat_zoo.results import Result
from idat_zoo.values import Frozen, Scalar

NONE = "–"
"""The value of a field that a recipe does not have."""


class SeedCounts(Frozen):
    """The images that only one of the two runs of a seed classifies correctly.

    `gained` are right with B alone, `lost` with A alone. `p` is McNemar's exact two-sided p-value:
    of a fair coin for each of these images.
    """

    seed: int
    gained: int
    lost: int
    p: float


class ClassChange(Frozen):
    """The recall of a class with A and with B, a fraction: the mean over seeds.

    `images` is the number of its test images; `gained` and `lost` are sums over seeds.
    """

    index: int
    name: str | None = None
    images: int
    first: float
    second: float
    gained: int
    lost: int


class ChangedImage(Frozen):
    """A test image that is right with one side alone, and the classes that both sides predict.

    `index` is its place in the test split. With several seeds there is one for each seed.
    """

    index: int
    seed: int
    target: int
    first: int
    second: int


class TaskComparison(Frozen):
    """B minus A on one task, over the seeds that both were run with.

    `first` and `second` are the mean top-1 of A and of B over these seeds, as fractions. Without
    predictions of the same images `why_not` says why they are not compared, and is '' otherwise.
    """

    task: str
    seeds: tuple[int, ...]
    first: float
    second: float
    difference: Difference | None = None
    why_not: str = ""
    by_seed: tuple[SeedCounts, ...] = ()
    classes: tuple[ClassChange, ...] = ()
    images: tuple[ChangedImage, ...] = ()


class RunsComparison(Frozen):
    """B compared with A.

    `fields` are the fields in which the recipes differ, with the values of A and of B.
    `only_first` and `only_second` are tasks, or seeds of a task, that only one side has. `gain` is
    the mean gain over the tasks, with Student's 95 % interval over them, if there are several;
    `p_tasks` and `p_seeds` are its p-values by sign flips, the second with several seeds alone, and
    `effect` is its size by its spread over the tasks.
    """

    first: str
    second: str
    fields: dict[str, tuple[Scalar, Scalar]]
    tasks: tuple[TaskComparison, ...]
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()
    gain: float | None = None
    interval: Interval | None = None
    p_tasks: float | None = None
    p_seeds: float | None = None
    effect: Effect | None = None


Found = Sequence[tuple[Path, Result]]


def compare_results(
    first: Found,
    second: Found,
    *,
    names: tuple[str, str] = ("A", "B"),
    read_options: ReadOptions = class_options,
) -> RunsComparison:
    """Compare the results of B, each with the path of its result.json, with those of A.

    Predictions are read from the files beside them. `read_options` fills in the defaults of adapter
    options, as in `build_report`.

    Raises: UsageError if a side has several recipes on one task, or both have no task in common.
    """
    groups, others = (
        _by_task(found, name, read_options)
        for found, name in zip((first, second), names, strict=True)
    )
    both = [task for task in groups if task in others]
    if not both:
        raise UsageError(
            f"'{names[0]}' and '{names[1]}' have no task in common: the first has "
            f"{', '.join(sorted(groups))}, the second {', '.join(sorted(others))}."
        )
    pairs = {task: _Pair(groups[task], others[task]) for task in both}
    known = [own.correctness for own in pairs.values() if own.correctness is not None]
    variance, freedom = seed_variances(known)
    by_seed = [list(map(float, own.mean(1))) for own in known]
    seeds = max(map(len, by_seed), default=0)
    tasks = [own.compare(variance, freedom) for own in pairs.values()]
    gains = [one.difference.gain for one in tasks if one.difference is not None]
    several = len(gains) > 1
    return RunsComparison(
        first=names[0],
        second=names[1],
        fields=_differing(list(pairs.values())),
        tasks=tuple(tasks),
        only_first=tuple(_only(groups, others)),
        only_second=tuple(_only(others, groups)),
        gain=statistics.fmean(gains) if several else None,
        interval=over_seeds(gains) if several and len(set(gains)) > 1 else None,
        p_tasks=sign_flip_p(by_seed, unit="tasks") if several else None,
        p_seeds=sign_flip_p(by_seed, unit="seeds") if several and seeds > 1 else None,
        effect=effect_over_tasks(gains) if several else None,
    )


def _by_task(found: Found, name: str, read_options: ReadOptions) -> dict[str, Group]:
    """The group of each task. Raises: UsageError for several recipes on one task."""
    groups: dict[str, Group] = {}
    for group in group_results(found, read_options)[0]:
        if group.task in groups:
            raise UsageError(
                f"'{name}' holds several recipes on task '{group.task}', so it is no side of a "
                "comparison.",
                hint="Name a run, or a folder with the seeds of one recipe; `idat report` shows "
                "many side by side.",
            )
        groups[group.task] = group
    return groups


def _only(groups: Mapping[str, Group], others: Mapping[str, Group]) -> list[str]:
    """The tasks that only the first has, and of common tasks the seeds."""
    told = [task for task in groups if task not in others]
    for task in groups.keys() & others.keys():
        if len(groups[task].results) == len(others[task].results) == 1:
            continue
        alone = groups[task].by_seed().keys() - others[task].by_seed().keys()
        told += [f"{task} seed {seed}" for seed in sorted(alone)]
    return told


class _Pair:
    """The groups of A and of B on one task, and their predicted classes by seed."""

    def __init__(self, first: Group, second: Group) -> None:
        self.first, self.second = first, second
        self._runs, self._others = first.by_seed(), second.by_seed()
        self.other_seed: int | None = None
        if len(self._runs) == len(self._others) == 1:
            (seed,), (self.other_seed,) = self._runs, self._others
            self._others = {seed: self._others[self.other_seed]}
        self.seeds = sorted(self._runs.keys() & self._others.keys())
        self.why_not = "" if self.seeds else "no seed in common"
        self._classes: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = []
        try:
            self._classes = [self._read(seed) for seed in self.seeds]
        except ValueError as error:
            self.why_not = str(error)
        self.correctness = self._correctness() if not self.why_not else None

    def _read(self, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The classes of both runs. Raises: ValueError if they cannot be paired."""
        one, other = read_classes(*self._runs[seed]), read_classes(*self._others[seed])
        if not all(np.array_equal(one[name], other[name]) for name in ("index", "target")):
            raise ValueError("the two runs were tested on different images")
        return one, other

    def _correctness(self) -> np.ndarray | None:
        """The differences in correctness `[S, N]`, B minus A."""
        rows = [
            (other["student"] == other["target"]).astype(np.int8)
            - (one["student"] == one["target"]).astype(np.int8)
            for one, other in self._classes
        ]
        if len({len(row) for row in rows}) > 1:
            self.why_not = "the seeds were tested on different images"
            return None
        return np.stack(rows)

    def compare(self, variance: float, freedom: int) -> TaskComparison:
        """The comparison, with the variance from seed to seed pooled over the tasks."""
        tops = [(self._runs[s][1].top1, self._others[s][1].top1) for s in self.seeds]
        means = [statistics.fmean(own) for own in zip(*tops, strict=True)] or [
            statistics.fmean(result.top1 for _, result in group.results)
            for group in (self.first, self.second)
        ]
        difference = None
        if self.correctness is not None:
            difference = difference_of(self.correctness, seed_variance=variance, freedom=freedom)
        return TaskComparison(
            task=self.first.task,
            seeds=tuple(self.seeds),
            first=means[0],
            second=means[1],
            difference=difference,
            why_not=self.why_not,
            by_seed=tuple(self._counts(seed, *own) for seed, own in self._by_seed()),
            classes=tuple(self._changes_by_class()),
            images=tuple(self._images()),
        )

    def _by_seed(self) -> list[tuple[int, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]]:
        """The classes of both runs of every seed; none if they are not compared."""
        known = self._classes if self.correctness is not None else []
        return list(zip(self.seeds, known, strict=bool(known)))

    def _counts(
        self, seed: int, one: dict[str, np.ndarray], other: dict[str, np.ndarray]
    ) -> SeedCounts:
        gained, lost = paired_counts(other["student"], one["student"], one["target"])
        p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
        return SeedCounts(seed=seed, gained=gained, lost=lost, p=p)

    def _changes_by_class(self) -> list[ClassChange]:
        if self.correctness is None:
            return []
        scores = self._runs[self.seeds[0]][1].student.per_class
        target = self._classes[0][0]["target"]
        found = []
        for index in np.unique(target):
            of_class = target == index
            own = self.correctness[:, of_class]
            recalls = [
                statistics.fmean(
                    float((pair[side]["student"][of_class] == index).mean())
                    for pair in self._classes
                )
                for side in (0, 1)
            ]
            found.append(
                ClassChange(
                    index=int(index),
                    name=scores[index].name if index < len(scores) else None,
                    images=int(of_class.sum()),
                    first=recalls[0],
                    second=recalls[1],
                    gained=int((own > 0).sum()),
                    lost=int((own < 0).sum()),
                )
            )
        return found

    def _images(self) -> list[ChangedImage]:
        if self.correctness is None:
            return []
        return [
            ChangedImage(
                index=int(one["index"][place]),
                seed=seed,
                target=int(one["target"][place]),
                first=int(one["student"][place]),
                second=int(other["student"][place]),
            )
            for (seed, (one, other)), row in zip(self._by_seed(), self.correctness, strict=True)
            for place in np.flatnonzero(row)
        ]


def _differing(pairs: Sequence[_Pair]) -> dict[str, tuple[Scalar, Scalar]]:
    """The fields in which recipes differ; values that differ between tasks are joined."""
    found: dict[str, tuple[dict[Scalar, None], dict[Scalar, None]]] = {}
    for pair in pairs:
        one, other = (dict(group.fields) for group in (pair.first, pair.second))
        if pair.other_seed is not None:
            one["seed"], other["seed"] = pair.seeds[0], pair.other_seed
        for name in dict.fromkeys([*one, *other]):
            values = one.get(name, NONE), other.get(name, NONE)
            if values[0] != values[1]:
                for known, value in zip(found.setdefault(name, ({}, {})), values, strict=True):
                    known[value] = None
    return {name: (_joined(first), _joined(second)) for name, (first, second) in found.items()}


def _joined(values: dict[Scalar, None]) -> Scalar:
    only = list(values)
    return only[0] if len(only) == 1 else " or ".join(map(str, only))
