"""The heat table: methods by tasks, beside the floors that need no network."""

import statistics
from collections.abc import Mapping, Sequence

from idat_zoo.page.contrast import Answers, answers_of, contrast
from idat_zoo.report.build import Report
from idat_zoo.report.cells import as_words
from idat_zoo.report.rows import Group, Over, Row
from idat_zoo.values import Frozen

PLAIN_NAME = "the recipe"
"""The name of a method whose label is empty, because there is no other."""
RAW_PIXELS = ("logistic_regression", "nearest_neighbour")


class Cell(Frozen):
    """The top-1 of a method on a task, a fraction, with its 95 % interval and what that covers.

    `shade` is where it lies between chance (0) and 1. `leads` says that it is the best of its task,
    or cannot be told from the best.
    """

    top1: float
    low: float
    high: float
    over: Over
    seeds: int
    shade: float
    leads: bool = False


class Method(Frozen):
    """A method: its cell for each task that it has, and its means by name."""

    name: str
    cells: dict[str, Cell]
    means: dict[str, float]


class Heat(Frozen):
    """Methods by tasks. `chance` and `raw_pixels` are the floors of each task, as fractions.

    `means` are the names of means, groups first. `unpaired` are tasks on which a method was
    compared with the best without the same images and seeds.
    """

    tasks: tuple[str, ...]
    methods: tuple[Method, ...]
    chance: dict[str, float]
    raw_pixels: dict[str, float]
    means: tuple[str, ...]
    unpaired: tuple[str, ...]


def method_name(row: Row) -> str:
    """The name of a row's method among those of the report."""
    return as_words(row.label) or PLAIN_NAME


def build_heat(report: Report, groups: Sequence[Group]) -> Heat:
    """The heat table of a report, whose rows are those of the groups, in their order."""
    by_task: dict[str, list[int]] = {}
    for place, row in enumerate(report.rows):
        by_task.setdefault(row.task, []).append(place)
    leading: set[int] = set()
    unpaired = []
    for task, places in by_task.items():
        best, all_paired = _leading([groups[place] for place in places], places)
        leading |= best
        unpaired += [] if all_paired else [task]
    cells: dict[str, dict[str, Cell]] = {}
    for place, row in enumerate(report.rows):
        cell = _cell(row, leads=place in leading)
        cells.setdefault(method_name(row), {})[row.task] = cell
    means = {as_words(series.label) or PLAIN_NAME: series for series in report.means}
    named = {
        name: {mean.name: mean.top1 for mean in (*series.groups, *series.overall)}
        for name, series in means.items()
    }
    floors = {row.task: _floors(row) for row in report.rows}
    return Heat(
        tasks=tuple(by_task),
        methods=tuple(
            Method(name=name, cells=own, means=named.get(name, {})) for name, own in cells.items()
        ),
        chance={task: own["chance"] for task, own in floors.items() if "chance" in own},
        raw_pixels={
            task: max(own[name] for name in RAW_PIXELS if name in own)
            for task, own in floors.items()
            if own.keys() & set(RAW_PIXELS)
        },
        means=tuple(dict.fromkeys(name for own in named.values() for name in own)),
        unpaired=tuple(unpaired),
    )


def _floors(row: Row) -> Mapping[str, float]:
    return {one.name: one.top1 for one in row.baselines}


def _cell(row: Row, *, leads: bool) -> Cell:
    chance = _floors(row).get("chance", 0.0)
    return Cell(
        top1=row.top1.mean,
        low=row.top1.interval[0],
        high=row.top1.interval[1],
        over=row.top1.over,
        seeds=len(row.seeds),
        shade=min(1.0, max(0.0, (row.top1.mean - chance) / (1 - chance))) if chance < 1 else 0.0,
        leads=leads,
    )


def _leading(groups: Sequence[Group], places: Sequence[int]) -> tuple[set[int], bool]:
    """The places of the best group of a task and of those that cannot be told from it.

    The second value says whether all comparisons were paired. They are not corrected for their
    number, which would only put more methods beside the best.
    """
    if len(groups) == 1:
        return set(), True
    tops = [statistics.fmean(result.top1 for _, result in group.results) for group in groups]
    best = max(range(len(groups)), key=tops.__getitem__)
    answers: list[Answers] = [answers_of(group) for group in groups]
    leading, all_paired = {places[best]}, True
    for place, group in enumerate(groups):
        if place == best:
            continue
        found = contrast(groups[best], group, (answers[best], answers[place]))
        all_paired &= found.paired
        if not found.is_told:
            leading.add(places[place])
    return leading, all_paired
