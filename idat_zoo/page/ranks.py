"""The critical-difference diagram of average ranks (Demšar, JMLR 7 (2006), 1, figure 1)."""

from collections.abc import Sequence

from idat_zoo.page.entries import Entry
from idat_zoo.page.figures import MUTED, SERIES, Drawing, drawing, wrapped
from idat_zoo.report.means import SeriesMeans
from idat_zoo.report.ranks import Ranks, average_ranks


def build_ranks(entries: Sequence[Entry], means: Sequence[SeriesMeans]) -> dict[str, Ranks]:
    """The ranks of the methods over the tasks of each suite that has enough of both."""
    methods = {entry.place: entry.method for entry in entries}
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for series in means:
        method = methods[series.rows[series.tasks[0]]]
        scores.setdefault(series.suite, {})[method] = series.top1
    found = {suite: average_ranks(own) for suite, own in scores.items()}
    return {suite: ranks for suite, ranks in found.items() if ranks is not None}


def draw_ranks(ranks: Ranks, name: str) -> Drawing:
    """The figure: methods by average rank; a bar joins those that cannot be told apart."""
    methods = ranks.methods
    labels, height = wrapped([own.method for own in methods])
    with drawing(5.6, 1.0 + height * (len(methods) + 0.5 * len(ranks.alike))) as (figure, axes):
        axes.grid(visible=False, axis="y")
        places = {own.method: len(methods) - 1 - k for k, own in enumerate(methods)}
        tips = {}
        for own in methods:
            gid = f"rank-{places[own.method]}"
            axes.plot([own.rank], [places[own.method]], marker="o", color=SERIES[0], gid=gid)
            tips[gid] = f"{own.method}: average rank {own.rank:.2f}"
        for k, together in enumerate(ranks.alike):
            at = len(methods) + 0.1 + 0.35 * k
            ends = [own.rank for own in methods if own.method in together]
            axes.plot([min(ends), max(ends)], [at, at], color=MUTED, linewidth=3)
            for own in methods:
                if own.method in together:
                    axes.plot(
                        [own.rank, own.rank], [places[own.method], at], color=MUTED, linewidth=0.5
                    )
        axes.set_yticks(list(places.values()), labels)
        axes.set_ylim(-0.6, len(methods) + 0.4 + 0.35 * len(ranks.alike))
        low = min(own.rank for own in methods)
        axes.set_xlim(max(0.5, low - 0.5), max(own.rank for own in methods) + 0.5)
        axes.set_xlabel(
            f"average rank over {len(ranks.tasks)} tasks",
        )
        return Drawing(figure, name, title="Average ranks with the critical difference", tips=tips)
