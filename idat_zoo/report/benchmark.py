"""Suites that means are taken over, and the named means of numbers by task."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

Averaged = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Suite -> group -> ids of its tasks: all that means are taken over, in the order of reports.

`idat_zoo.registry.averaged_tasks` makes it from the shelves. A user's own task of a built-in suite
is not in it, so it enters no mean.
"""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A suite that means are taken over, with its tasks by group."""

    suite: str
    groups: Mapping[str, tuple[str, ...]]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The ids of all its tasks."""
        return tuple(task for tasks in self.groups.values() for task in tasks)


def benchmarks(averaged: Averaged) -> list[Benchmark]:
    """The suites that means are taken over, in order. No mean is over tasks of two of them."""
    return [Benchmark(suite=suite, groups=groups) for suite, groups in averaged.items()]


def benchmark_of(suite: str, averaged: Averaged) -> Benchmark:
    """A suite with its tasks; it has none where no means are taken over it."""
    return Benchmark(suite=suite, groups=averaged.get(suite, {}))


def named_means(benchmark: Benchmark, values: Mapping[str, float]) -> dict[str, float]:
    """The mean over all n tasks as `mean<n>`, that over the means of all g groups as `mean<g>`.

    There are none if a task has no value, and the second only of several groups.
    """
    if not benchmark.tasks or any(task not in values for task in benchmark.tasks):
        return {}
    over_tasks = statistics.fmean(values[task] for task in benchmark.tasks)
    groups = [statistics.fmean(values[t] for t in tasks) for tasks in benchmark.groups.values()]
    means = {f"mean{len(benchmark.tasks)}": over_tasks}
    return means | ({f"mean{len(groups)}": statistics.fmean(groups)} if len(groups) > 1 else {})
