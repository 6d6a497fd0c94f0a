"""Accuracy against what it costs, and the spread of seeds beside that of methods."""

import math
import statistics
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, SymmetricalLogLocator

from idat_zoo.page.entries import Entry
from idat_zoo.page.figures import Drawing, drawing, label_series
from idat_zoo.report.cells import as_count, percent
from idat_zoo.report.rows import Row, largest
from idat_zoo.values import Frozen

MUCH = 4
"""The largest cost over the smallest above 0, from which an axis is by powers."""
NARROW = 0.1
"""The least width of an axis, as a share of the largest cost."""
NEAR = (0.08, 0.06)
"""Points nearer than these shares of the figure's axes have their numbers in one text."""
MOST_NUMBERS = 4
"""Numbers, or ranges of them, that are written beside one point."""
SUBS = (1, 2, 5)


class Cost(Frozen):
    """A method over its tasks: mean top-1, trained parameters of the adapter, minutes and memory.

    `number` tells it apart in figures, from 1. `minutes` is the mean wall-clock time of one run on
    the devices that are named. `memory` is the largest peak of its runs in MiB, and None if it is
    unknown of one.
    """

    number: int
    method: str
    top1: float
    tasks: int
    parameters: float
    minutes: float
    memory: float | None
    devices: tuple[str, ...]


class Spread(Frozen):
    """The standard deviations of top-1 on one task, as fractions.

    `seeds` is over the seeds of a method, pooled over methods, and None if there is one seed of
    each; `methods` is over the means of the methods, of which there are `count`.
    """

    task: str
    seeds: float | None
    methods: float
    count: int


def build_costs(entries: Sequence[Entry]) -> list[Cost]:
    """The cost of each method. Only methods with the same tasks can be set beside each other."""
    by_method: dict[str, list[Entry]] = {}
    for entry in entries:
        by_method.setdefault(entry.method, []).append(entry)
    return [
        _cost(number, method, own)
        for number, (method, own) in enumerate(by_method.items(), start=1)
    ]


def _cost(number: int, method: str, own: Sequence[Entry]) -> Cost:
    runs = [result for entry in own for _, result in entry.group.results]
    peak = largest(entry.row.peak_memory for entry in own)
    return Cost(
        number=number,
        method=method,
        top1=statistics.fmean(entry.row.top1.mean for entry in own),
        tasks=len(own),
        parameters=statistics.fmean(entry.row.adapter_parameters for entry in own),
        minutes=statistics.fmean(run.seconds for run in runs) / 60,
        memory=None if peak is None else peak / 2**20,
        devices=tuple(dict.fromkeys(run.device for run in runs)),
    )


def widest(costs: Sequence[Cost]) -> list[Cost]:
    """The methods with the largest number of tasks, whose means are over the same ones."""
    most = max(cost.tasks for cost in costs)
    return [cost for cost in costs if cost.tasks == most]


def cost_figures(costs: Sequence[Cost]) -> list[Drawing]:
    """The figures of the methods with the most tasks: by memory only if it is known of all."""
    shown = widest(costs)
    known = ["memory"] if all(cost.memory is not None for cost in shown) else []
    return [draw_costs(shown, f"cost-{of}", of=of) for of in ("parameters", "minutes", *known)]


def memory_note(costs: Sequence[Cost]) -> str:
    """A sentence on what peaks of memory are, and of how many methods they are unknown."""
    unknown = sum(cost.memory is None for cost in costs)
    if unknown == len(costs):
        return "The results do not record their memory."
    told = (
        "Memory is the largest peak of a method's runs: on CUDA what torch allocated, on a CPU all "
        "that the process held, and of runs that shared a pass that of the pass."
    )
    if unknown:
        told += f" It is unknown of {unknown} of {len(costs)} methods"
        drawn = all(cost.memory is not None for cost in widest(costs))
        told += "." if drawn else ", so no figure shows it."
    return told


def build_spreads(rows: Sequence[Row]) -> list[Spread]:
    """The spreads on each task that several methods were run on."""
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(row)
    return [_spread(task, own) for task, own in by_task.items() if len(own) > 1]


def _spread(task: str, rows: Sequence[Row]) -> Spread:
    several = [(len(row.seeds) - 1, row.top1.sd) for row in rows if row.top1.sd is not None]
    freedom = sum(count for count, _ in several)
    pooled = sum(count * sd**2 for count, sd in several)
    return Spread(
        task=task,
        seeds=math.sqrt(pooled / freedom) if freedom else None,
        methods=statistics.stdev(row.top1.mean for row in rows),
        count=len(rows),
    )


def draw_costs(costs: Sequence[Cost], name: str, *, of: str) -> Drawing:
    """The figure: mean top-1 by a cost. `of` is `parameters`, `minutes` or `memory`.

    Each point has the number of its method, from 1 in the order of the costs. Points that lie on
    each other have their numbers in one text.
    """
    styles = label_series([cost.method for cost in costs])
    values = [float(getattr(cost, of)) for cost in costs]
    texts = {
        "parameters": ("trained parameters of the adapter", _whole),
        "minutes": ("minutes of one run", lambda minutes: f"{as_minutes(minutes)} min"),
        "memory": ("peak memory of a run, MiB", lambda memory: f"{memory:,.0f} MiB"),
    }
    title, as_text = texts[of]
    with drawing(5.6, 3.4) as (figure, axes):
        tips = {}
        for place, (cost, value) in enumerate(zip(costs, values, strict=True)):
            colour, marker, _ = styles[cost.method]
            gid = f"point-{place}"
            axes.plot(
                [value],
                [100 * cost.top1],
                marker=marker,
                markersize=7,
                linestyle="none",
                color=colour,
                gid=gid,
            )
            tips[gid] = f"{cost.method}: {percent(cost.top1)} %, {as_text(value)}"
        _scale(axes, values, as_tick=_whole if of == "parameters" else _plain)
        _number(axes, costs, values)
        axes.set_xlabel(title)
        axes.set_ylabel("mean top-1, %")
        return Drawing(figure, name, title=f"Mean top-1 by {title}", tips=tips)


def as_minutes(minutes: float) -> str:
    """Minutes with two digits or more that say something: `0.0042`, `0.38`, `1.5`, `124`."""
    return f"{minutes:.2g}" if minutes < 1 else f"{minutes:.{int(minutes < 10)}f}"


def _whole(value: float) -> str:
    return as_count(round(value))


def _plain(value: float) -> str:
    return f"{value:,.10g}"


def _scale(axes: Axes, values: Sequence[float], *, as_tick: Callable[[float], str]) -> None:
    """Scale the axis of a cost: by powers where costs that are not 0 differ much.

    Where they hardly differ, the axis is at least a tenth of the largest wide, so that they are
    not torn apart.
    """
    axes.margins(x=0.1)
    low, high = min(values), max(values)
    positive = [value for value in values if value > 0]
    if positive and high > MUCH * min(positive):
        axes.set_xscale("symlog", linthresh=min(positive), subs=SUBS)
        locator = SymmetricalLogLocator(base=10, linthresh=min(positive), subs=SUBS)
        locator.set_params(numticks=8)
        axes.xaxis.set_major_locator(locator)
    elif high - low < high * NARROW:
        axes.set_xlim((low + high - high * NARROW) / 2, (low + high + high * NARROW) / 2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: as_tick(value)))


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers, each run of three or more as a range: `1–4, 7, 8`. Many end in `…`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [
        text
        for run in runs
        for text in ([f"{run[0]}–{run[-1]}"] if len(run) > 2 else map(str, run))
    ]
    return ", ".join([*texts[:MOST_NUMBERS], *(["…"] if len(texts) > MOST_NUMBERS else [])])


def _number(axes: Axes, costs: Sequence[Cost], values: Sequence[float]) -> None:
    """Write the numbers of the methods beside their points, those of near points together."""
    axes.autoscale_view()  # the limits are not known before
    to_axes = axes.transData + axes.transAxes.inverted()
    groups: list[tuple[float, float, list[int]]] = []
    for cost, value in zip(costs, values, strict=True):
        x, y = to_axes.transform((value, 100 * cost.top1))
        for left, bottom, numbers in groups:
            if abs(x - left) < NEAR[0] and abs(y - bottom) < NEAR[1]:
                numbers.append(cost.number)
                break
        else:
            groups.append((x, y, [cost.number]))
    for x, y, numbers in groups:
        axes.annotate(
            _ranges(numbers),
            (x, y),
            xycoords="axes fraction",
            textcoords="offset points",
            xytext=(6, 3),
        )
