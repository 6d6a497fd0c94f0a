"""Selection inflation: what the best of all epochs on test adds to the last epoch's top-1.

It is known where both numbers of the same runs were released.
"""

import statistics
from collections.abc import Sequence

from idat_zoo.published_rows import PublishedRow
from idat_zoo.report.benchmark import Averaged, benchmark_of, named_means
from idat_zoo.values import Frozen


class MethodInflation(Frozen):
    """What it adds to one method, as fractions: on each task, and to the named means."""

    method: str
    peft: bool
    by_task: dict[str, float]
    means: dict[str, float]


class TaskInflation(Frozen):
    """The mean and the largest inflation of one task, over methods."""

    mean: float
    most: float


class Inflation(Frozen):
    """The inflation of all methods of a collection.

    `over` is the number of its methods that adapt a frozen network; `by_task` and `means` are over
    these, without full fine-tuning and the linear probe.
    """

    table: str
    source: str
    methods: tuple[MethodInflation, ...]
    over: int
    by_task: dict[str, TaskInflation]
    means: dict[str, float]


def inflation_of(row: PublishedRow, averaged: Averaged) -> MethodInflation:
    """The inflation of one published row, on the tasks that have both numbers."""
    by_task = {task: best - row.top1[task] for task, best in row.top1_best_on_test.items()}
    return MethodInflation(
        method=row.method,
        peft=row.peft,
        by_task=by_task,
        means=named_means(benchmark_of(row.suite, averaged), by_task),
    )


def build_inflation(published: Sequence[PublishedRow], averaged: Averaged) -> tuple[Inflation, ...]:
    """The inflation in each collection that has both numbers of its runs."""
    both = [row for row in published if row.top1_best_on_test]
    return tuple(
        _over_methods([row for row in both if row.table == table], averaged)
        for table in dict.fromkeys(row.table for row in both)
    )


def _over_methods(rows: Sequence[PublishedRow], averaged: Averaged) -> Inflation:
    methods = tuple(inflation_of(row, averaged) for row in rows)
    adapted = [one for one in methods if one.peft]
    return Inflation(
        table=rows[0].table,
        source=rows[0].source,
        methods=methods,
        over=len(adapted),
        by_task={
            task: TaskInflation(mean=statistics.fmean(added), most=max(added))
            for task in benchmark_of(rows[0].suite, averaged).tasks
            for added in [[one.by_task[task] for one in adapted if task in one.by_task]]
            if added
        },
        means={
            name: statistics.fmean(one.means[name] for one in adapted)
            for name in dict.fromkeys(name for one in adapted for name in one.means)
            if all(name in one.means for one in adapted)
        },
    )
