"""The heat table: methods by tasks, beside the floors that need no network."""

from collections.abc import Mapping, Sequence

from idat_zoo.page.contrast import Contrasts
from idat_zoo.page.entries import Entry
from idat_zoo.report.means import SeriesMeans
from idat_zoo.report.rows import Over, Row
from idat_zoo.values import Frozen

RAW_PIXELS = ("logistic_regression", "nearest_neighbour")


class Cell(Frozen):
    """The top-1 of a method on a task, a fraction, with its 95 % interval and what that covers.

    `shade` is where it lies between chance (0) and 1. `leads` says that it is the best of its task,
    or is too close to the best to call, and `marks` what its number rests on unlike others.
    """

    top1: float
    low: float
    high: float
    over: Over
    seeds: int
    shade: float
    leads: bool = False
    marks: tuple[str, ...] = ()


class Method(Frozen):
    """A method: its cell for each task that it has, and its means by name."""

    name: str
    cells: dict[str, Cell]
    means: dict[str, float]


class Heat(Frozen):
    """Methods by tasks. `chance` and `raw_pixels` are the floors of each task, as fractions.

    `means` are the names of means, groups first. `unpaired` are tasks on which a method was
    compared with the best without the same images and seeds. `marks` says which methods rest on
    something else than others, by what it is.
    """

    tasks: tuple[str, ...]
    methods: tuple[Method, ...]
    chance: dict[str, float]
    raw_pixels: dict[str, float]
    means: tuple[str, ...]
    unpaired: tuple[str, ...]
    marks: dict[str, tuple[str, ...]]


def build_heat(
    entries: Sequence[Entry], means: Sequence[SeriesMeans], contrasts: Contrasts
) -> Heat:
    """The heat table of entries; `means` are those of the report."""
    by_task: dict[str, list[Entry]] = {}
    for entry in entries:
        by_task.setdefault(entry.task, []).append(entry)
    leading: set[tuple[str, str]] = set()
    unpaired = []
    for task, own in by_task.items():
        best, all_paired = _leading(own, contrasts)
        leading |= {(task, method) for method in best}
        unpaired += [] if all_paired else [task]
    cells: dict[str, dict[str, Cell]] = {}
    for entry in entries:
        cell = _cell(entry.row, leads=(entry.task, entry.method) in leading)
        cells.setdefault(entry.method, {})[entry.task] = cell
    named = _named_means(entries, means)
    floors = {entry.task: _floors(entry.row) for entry in entries}
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
        marks=_marks(entries),
    )


def _marks(entries: Sequence[Entry]) -> dict[str, tuple[str, ...]]:
    """What numbers rest on unlike others, in words, with the methods."""
    found: dict[str, dict[str, None]] = {}
    for entry in entries:
        for mark in entry.row.marks:
            found.setdefault(str(mark), {})[entry.method] = None
    return {mark: tuple(methods) for mark, methods in found.items()}


def _named_means(
    entries: Sequence[Entry], means: Sequence[SeriesMeans]
) -> Mapping[str, dict[str, float]]:
    """Method -> name of a mean -> its value."""
    methods = {entry.place: entry.method for entry in entries}
    found = {}
    for series in means:
        method = methods.get(series.rows[series.tasks[0]])
        if method is None:  # no entry of the table is of this series
            continue
        found[method] = {mean.name: mean.top1 for mean in (*series.groups, *series.overall)}
    return found


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
        marks=tuple(map(str, row.marks)),
    )


def _leading(entries: Sequence[Entry], contrasts: Contrasts) -> tuple[set[str], bool]:
    """The best method of a task and those that are too close to it to call.

    The second value says whether all comparisons were paired. They are not corrected for their
    number, which would only put more methods beside the best.
    """
    if len(entries) == 1:
        return set(), True
    best = max(entries, key=lambda entry: entry.row.top1.mean)
    found = {
        entry.method: contrasts.between(best.method, entry.method)[entry.task]
        for entry in entries
        if entry is not best
    }
    leading = {method for method, one in found.items() if not one.is_told}
    return leading | {best.method}, all(one.paired for one in found.values())
