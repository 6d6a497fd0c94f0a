"""Means over the tasks of a suite: by group, over all tasks, over the group means.

A suite says which groups it has, and a shelf which tasks are in each. A mean over all n tasks is
called `mean<n>`, one over the means of all g groups `mean<g>`: over VTAB-1K these are `mean19` and
`mean3`, over the mini suite `mean6` and `mean3`.
"""

import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from idat_zoo.report.benchmark import Averaged, Benchmark, benchmarks, named_means
from idat_zoo.report.fields import as_text, differing_within_tasks, is_of_the_task, label, telling
from idat_zoo.report.rows import Group, Row
from idat_zoo.values import Frozen, Scalar


class Mean(Frozen):
    """A mean of top-1 as a fraction: over `count` of the `of` tasks, or groups, that there are."""

    name: str
    top1: float
    top1_best_on_test: float | None = None
    count: int
    of: int


class SeriesMeans(Frozen):
    """The means of one series over a suite: one for each group, then those over all tasks.

    A series is one method: recipes that are alike in all that is not set task by task. `by_task`
    has the fields that are: field -> value as text -> tasks. `top1` has its numbers by task, and
    `rows` the places of these rows in the report.
    """

    suite: str
    label: dict[str, Scalar]
    tasks: tuple[str, ...]
    top1: dict[str, float]
    rows: dict[str, int]
    groups: tuple[Mean, ...]
    overall: tuple[Mean, ...]
    by_task: dict[str, dict[str, tuple[str, ...]]]


Series = list[tuple[Group, Row]]


def build_means(
    groups: Sequence[Group], rows: Sequence[Row], averaged: Averaged
) -> list[SeriesMeans]:
    """The means of every series that has results on at least two tasks of a suite."""
    told = telling([group.fields for group in groups])
    pairs = list(zip(groups, rows, strict=True))
    places = {id(row): place for place, row in enumerate(rows)}
    return [
        _means(benchmark, series, told, places)
        for benchmark in benchmarks(averaged)
        for series in find_series([pair for pair in pairs if is_of(pair[0], benchmark)])
        if len(series) > 1
    ]


def is_of(group: Group, benchmark: Benchmark) -> bool:
    """Whether a group of results is of one of a benchmark's tasks."""
    return group.fields["task.suite"] == benchmark.suite and group.task in benchmark.tasks


def find_series(pairs: Sequence[tuple[Group, Row]]) -> list[Series]:
    """Rows that may be averaged: at most one recipe for each task.

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


def _means(
    benchmark: Benchmark, series: Series, told: set[str], places: Mapping[int, int]
) -> SeriesMeans:
    by_task = differing_by_task([group for group, _ in series])
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
        top1={task: rows[task].top1.mean for task in tasks},
        rows={task: places[id(rows[task])] for task in tasks},
        groups=groups,
        overall=_overall(benchmark, {task: rows[task] for task in tasks}),
        by_task=by_task,
    )


def _overall(benchmark: Benchmark, rows: Mapping[str, Row]) -> tuple[Mean, ...]:
    """The named means where no task is missing, else one mean of the tasks that are there."""
    every = len(benchmark.tasks)
    if len(rows) < every:
        return (_mean(f"mean of {len(rows)} tasks", list(rows.values()), of=every),)
    best = {
        task: row.top1_best_on_test
        for task, row in rows.items()
        if row.top1_best_on_test is not None
    }
    means = named_means(benchmark, {task: row.top1.mean for task, row in rows.items()})
    bests = named_means(benchmark, best)
    return tuple(
        Mean(name=name, top1=top1, top1_best_on_test=bests.get(name), count=of, of=of)
        for (name, top1), of in zip(means.items(), (every, len(benchmark.groups)), strict=False)
    )


def _mean(name: str, rows: Sequence[Row], *, of: int) -> Mean:
    best = [row.top1_best_on_test for row in rows if row.top1_best_on_test is not None]
    return Mean(
        name=name,
        top1=statistics.fmean(row.top1.mean for row in rows),
        top1_best_on_test=statistics.fmean(best) if len(best) == len(rows) else None,
        count=len(rows),
        of=of,
    )


def differing_by_task(groups: Iterable[Group]) -> dict[str, dict[str, tuple[str, ...]]]:
    """The fields that differ from task to task: field -> value -> the tasks with that value."""
    values: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for group in groups:
        for name, value in group.fields.items():
            if is_of_the_task(name) and not name.startswith(("task", "data")):
                text = as_text(value)
                values[name][text] = (*values[name].get(text, ()), group.task)
    return {name: tasks for name, tasks in values.items() if len(tasks) > 1}
