"""The forest plot: the gain from the teacher, or over a chosen method, task by task."""

import statistics
from collections.abc import Sequence

from idat_zoo.page.contrast import Contrast, Contrasts
from idat_zoo.page.entries import Entry
from idat_zoo.page.figures import GRID, INK, MUTED, SERIES, Drawing, drawing, wrapped
from idat_zoo.report.cells import points
from idat_zoo.report.gain import Gain
from idat_zoo.report.rows import over_seeds
from idat_zoo.values import Frozen


class Line(Frozen):
    """The gain on one task in top-1, a fraction, with its 95 % interval."""

    task: str
    gain: float
    low: float
    high: float
    paired: bool

    @property
    def verdict(self) -> str:
        """`win`, `loss`, or `tie` where the interval holds 0."""
        return "win" if self.low > 0 else "loss" if self.high < 0 else "tie"


class Forest(Frozen):
    """The gains of one method, and the mean over its tasks, if there are several.

    The interval of the mean is Student's over the tasks: it covers other tasks like these.
    """

    method: str
    lines: tuple[Line, ...]
    mean: Line | None

    def count(self, verdict: str) -> int:
        """The number of tasks with a verdict: `win`, `tie` or `loss`."""
        return sum(line.verdict == verdict for line in self.lines)


def teacher_forests(entries: Sequence[Entry], gains: Sequence[Gain]) -> list[Forest]:
    """The gain from the teacher of each method that was trained with one and alone."""
    methods = {entry.place: entry.method for entry in entries}
    lines: dict[str, list[Line]] = {}
    for gain in gains:
        lines.setdefault(methods[gain.row], []).append(_line(gain))
    return [_forest(method, own) for method, own in lines.items()]


def reference_forests(
    entries: Sequence[Entry], contrasts: Contrasts, reference: str
) -> list[Forest]:
    """The gain of each other method over the one that is named, on the tasks that both have."""
    others = dict.fromkeys(entry.method for entry in entries if entry.method != reference)
    found = {method: contrasts.between(method, reference) for method in others}
    return [
        _forest(method, [_contrasted(task, one) for task, one in own.items()])
        for method, own in found.items()
        if own
    ]


def _contrasted(task: str, one: Contrast) -> Line:
    low, high = one.interval
    return Line(task=task, gain=one.gain, low=low, high=high, paired=one.paired)


def _line(gain: Gain) -> Line:
    whole = gain.mean or gain.seeds[0]
    low, high = whole.interval
    paired = not any(seed.unpaired for seed in gain.seeds)
    return Line(task=gain.task, gain=whole.gain, low=low, high=high, paired=paired)


def _forest(method: str, lines: Sequence[Line]) -> Forest:
    gains = [line.gain for line in lines]
    mean = None
    if len(gains) > 1:
        low, high = over_seeds(gains)
        low, high = max(-1.0, low), min(1.0, high)
        mean = Line(
            task=f"mean of {len(gains)} tasks",
            gain=statistics.fmean(gains),
            low=low,
            high=high,
            paired=all(line.paired for line in lines),
        )
    return Forest(method=method, lines=tuple(lines), mean=mean)


def draw_forest(forest: Forest, name: str, *, over: str) -> Drawing:
    """The figure of one method: a line for each task, and the mean below them."""
    lines = [*forest.lines, *([forest.mean] if forest.mean else [])]
    places = range(len(lines) - 1, -1, -1)
    labels, height = wrapped([line.task for line in lines])
    with drawing(5.6, 0.9 + height * len(lines)) as (figure, axes):
        axes.grid(visible=False, axis="y")
        axes.axvline(0, color=INK, linewidth=1)
        tips = {}
        for place, line in zip(places, lines, strict=True):
            gid = f"line-{place}"
            is_mean = line is forest.mean
            axes.errorbar(
                100 * line.gain,
                place,
                xerr=[[100 * (line.gain - line.low)], [100 * (line.high - line.gain)]],
                fmt="D" if is_mean else "o",
                markersize=6 if is_mean else 4.5,
                markerfacecolor=SERIES[0] if line.paired else "none",
                color=SERIES[0] if line.verdict != "tie" else MUTED,
                linewidth=2 if is_mean else 1.4,
                gid=None,
            )[0].set_gid(gid)
            tips[gid] = f"{line.task}: {_in_words(line)}"
        if forest.mean:
            axes.axhline(0.5, color=GRID, linewidth=0.8)
        axes.set_yticks(list(places), labels)
        axes.set_ylim(-0.6, len(lines) - 0.4)
        axes.set_xlabel("points of top-1, with 95 % intervals")
        beside = axes.secondary_yaxis("right")
        beside.set_yticks(list(places), [points(line.gain) for line in lines])
        beside.spines["right"].set_visible(False)
        beside.tick_params(length=0)
        return Drawing(figure, name, title=f"Gain {over}, task by task: {forest.method}", tips=tips)


def _in_words(line: Line) -> str:
    return f"{points(line.gain)} points ({points(line.low)} to {points(line.high)})"
