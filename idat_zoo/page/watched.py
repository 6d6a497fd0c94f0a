"""What selecting the epoch on test would have added, from the logs of runs that watched it."""

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from idat_zoo import files
from idat_zoo.file_names import LOG_FILE
from idat_zoo.page.entries import Entry
from idat_zoo.page.figures import MUTED, SERIES, Drawing, drawing, wrapped
from idat_zoo.report.cells import percent, points
from idat_zoo.report.rows import Group
from idat_zoo.results import Result
from idat_zoo.values import Frozen

Epochs = list[dict[str, float]]
"""The lines of a log, one for each epoch."""


class Watched(Frozen):
    """One method on one task: top-1 on test after the last epoch, and after the best one on test.

    Both are means over the seeds that were watched, as fractions. The difference is what a choice
    by the test images would have added.
    """

    task: str
    method: str
    last: float
    best: float
    seeds: int

    @property
    def added(self) -> float:
        """The best epoch minus the last one."""
        return self.best - self.last


def read_log(path: Path, result: Result) -> Epochs:
    """The epochs that the log beside a result.json holds; none if it is not the result's log."""
    file = path.with_name(LOG_FILE)
    if not file.is_file() or files.sha256(file) != result.files.get(LOG_FILE):
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]


def build_watched(entries: Sequence[Entry]) -> list[Watched]:
    """The methods and tasks of which runs watched the test images, in the order of the entries."""
    found = []
    for entry in entries:
        pairs = list(_last_and_best(entry.group))
        if pairs:
            last, best = (statistics.fmean(own) for own in zip(*pairs, strict=True))
            found.append(
                Watched(
                    task=entry.task,
                    method=entry.method,
                    last=last,
                    best=best,
                    seeds=len(pairs),
                )
            )
    return found


def _last_and_best(group: Group) -> Iterator[tuple[float, float]]:
    for path, result in group.results:
        if result.top1_best_on_test is not None:
            yield result.top1, result.top1_best_on_test
        elif result.recipe.watch == "test":
            tops = [epoch["test_top1"] for epoch in read_log(path, result) if "test_top1" in epoch]
            if tops:
                yield tops[-1], max(tops)


def draw_watched(watched: Sequence[Watched], name: str) -> Drawing:
    """The figure: for each method and task a line from the last epoch to the best one."""
    several = len({one.method for one in watched}) > 1
    labels = [f"{one.task}, {one.method}" if several else one.task for one in watched]
    places = list(range(len(watched) - 1, -1, -1))
    shown, height = wrapped(labels)
    with drawing(5.6, 1.1 + height * len(watched)) as (figure, axes):
        axes.grid(visible=False, axis="y")
        tips = {}
        for place, one, label in zip(places, watched, labels, strict=True):
            axes.plot([100 * one.last, 100 * one.best], [place, place], color=MUTED, linewidth=2)
            for kind, value, marker in (("last", one.last, "o"), ("best", one.best, "^")):
                gid = f"{kind}-{place}"
                axes.plot(
                    [100 * value],
                    [place],
                    marker=marker,
                    linestyle="none",
                    color=SERIES[0 if kind == "last" else 1],
                    label=None if place else {"last": "last epoch", "best": "best on test"}[kind],
                    gid=gid,
                )
                tips[gid] = f"{label}, {kind} epoch: {percent(value)} % ({points(one.added)})"
        axes.set_yticks(places, shown)
        axes.set_ylim(-0.6, len(watched) - 0.4)
        axes.set_xlabel("top-1 on test, %")
        figure.legend(loc="outside upper right", ncols=2)
        title = "Top-1 of the last epoch, and of the best epoch on test"
        return Drawing(figure, name, title=title, tips=tips)
