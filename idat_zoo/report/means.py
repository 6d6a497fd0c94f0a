"""Means over the tasks of a suite: by group, over all tasks, over the group means.

Over VTAB-1K they are called `mean19` and `mean3`, over the mini suite `mean6` and `mean3`.
"""

import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from idat_zoo.recipe import Frozen, Scalar
from idat_zoo.report.fields import as_text, differing_within_tasks, is_of_the_task, label, telling
from idat_zoo.report.rows import Group, Row


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A suite whose means have names: its tasks by group, in the order in which they are shown."""

    suite: str
    title: str
    groups: Mapping[str, tuple[str, ...]]

    @property
    def tasks(self) -> tuple[str, ...]:
        """All its tasks."""
        return tuple(task for tasks in self.groups.values() for task in tasks)

    def has(self, group: Group) -> bool:
        """Whether a group's task is one of these; a user's task of the same suite is not."""
        return group.fields["task.suite"] == self.suite and group.task in self.tasks


MINI = Benchmark(
    suite="mini",
    title="the mini suite (built in, not VTAB-1K)",
    groups={
        "natural": ("digits", "textures"),
        "specialized": ("lesions",),
        "structured": ("sprites_loc", "sprites_ori", "count"),
    },
)
VTAB_1K = Benchmark(
    suite="vtab1k",
    title="VTAB-1K",
    groups={
        "natural": ("cifar100", "caltech101", "dtd", "flowers102", "pets", "svhn", "sun397"),
        "specialized": ("patch_camelyon", "eurosat", "resisc45", "diabetic_retinopathy"),
        "structured": (
            "clevr_count",
            "clevr_dist",
            "dmlab",
            "kitti",
            "dsprites_loc",
            "dsprites_ori",
            "smallnorb_azi",
            "smallnorb_ele",
        ),
    },
)
BENCHMARKS = {benchmark.suite: benchmark for benchmark in (MINI, VTAB_1K)}
"""In the order in which they are shown. No mean is over tasks of two of them."""


class Mean(Frozen):
    """A mean of top-1 by its name, over how many values (tasks; for `mean3` groups)."""

    name: str
    top1: float
    top1_best_on_test: float | None = None
    count: int
    of: int


class SeriesMeans(Frozen):
    """One series over its tasks of a suite: a mean for each group it has, then the overall ones.

    A series is one method: recipes alike in all but what is set task by task. `by_task` tells how
    they differ: field -> value as text -> tasks.
    """

    suite: str
    label: dict[str, Scalar]
    tasks: tuple[str, ...]
    groups: tuple[Mean, ...]
    overall: tuple[Mean, ...]
    by_task: dict[str, dict[str, tuple[str, ...]]]


Series = list[tuple[Group, Row]]


def build_means(groups: Sequence[Group], rows: Sequence[Row]) -> list[SeriesMeans]:
    """The means of every series that has two tasks of a suite or more."""
    told = telling([group.fields for group in groups])
    pairs = list(zip(groups, rows, strict=True))
    return [
        _means(benchmark, series, told)
        for benchmark in BENCHMARKS.values()
        for series in find_series([pair for pair in pairs if benchmark.has(pair[0])])
        if len(series) > 1
    ]


def find_series(pairs: Sequence[tuple[Group, Row]]) -> list[Series]:
    """Rows that may stand in one mean: at most one recipe for each task.

    Recipes of a series agree in every field but those a recipe may set task by task; and in those
    too, where one task has several recipes that differ in them.
    """
    alike = _split(pairs, lambda name: not is_of_the_task(name))
    return [
        series
        for candidates in alike
        for within in [differing_within_tasks([group.fields for group, _ in candidates])]
        for series in _split(candidates, within.__contains__)
    ]


def _split(pairs: Sequence[tuple[Group, Row]], counts: Callable[[str], bool]) -> list[Series]:
    series: dict[Hashable, Series] = defaultdict(list)
    for group, row in pairs:
        key = frozenset((name, value) for name, value in group.fields.items() if counts(name))
        series[key].append((group, row))
    return list(series.values())


def _means(benchmark: Benchmark, series: Series, told: set[str]) -> SeriesMeans:
    by_task = _by_task([group for group, _ in series])
    rows = {group.task: row for group, row in series}
    tasks = tuple(task for task in benchmark.tasks if task in rows)
    groups = tuple(
        _mean(name, [rows[task] for task in members if task in rows], of=len(members))
        for name, members in benchmark.groups.items()
        if any(task in rows for task in members)
    )
    return SeriesMeans(
        suite=benchmark.suite,
        label=label(series[0][0].fields, told - by_task.keys()),
        tasks=tasks,
        groups=groups,
        overall=_overall(benchmark, [rows[task] for task in tasks], groups),
        by_task=by_task,
    )


def _overall(benchmark: Benchmark, rows: Sequence[Row], groups: Sequence[Mean]) -> tuple[Mean, ...]:
    """`mean19` and `mean3` where every task is there, else the mean of as many as there are."""
    every = len(benchmark.tasks)
    if len(rows) < every:
        return (_mean(f"mean of {len(rows)} tasks", rows, of=every),)
    names = (f"mean{every}", f"mean{len(benchmark.groups)}")
    return _mean(names[0], rows, of=every), _mean(names[1], groups, of=len(benchmark.groups))


def _mean(name: str, parts: Sequence[Row] | Sequence[Mean], *, of: int) -> Mean:
    best = [part.top1_best_on_test for part in parts]
    known = [value for value in best if value is not None]
    return Mean(
        name=name,
        top1=statistics.fmean(_top1(part) for part in parts),
        top1_best_on_test=statistics.fmean(known) if len(known) == len(parts) else None,
        count=len(parts),
        of=of,
    )


def _top1(part: Row | Mean) -> float:
    return part.top1.mean if isinstance(part, Row) else part.top1


def _by_task(groups: Iterable[Group]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Fields that differ from task to task: value -> the tasks that have it."""
    values: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for group in groups:
        for name, value in group.fields.items():
            if is_of_the_task(name) and not name.startswith(("task", "data")):
                text = as_text(value)
                values[name][text] = (*values[name].get(text, ()), group.task)
    return {name: tasks for name, tasks in values.items() if len(tasks) > 1}
