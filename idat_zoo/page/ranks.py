"""The critical-difference diagram of average ranks (Demšar, JMLR 7 (2006), 1, figure 1)."""

from idat_zoo.page.figures import INK, MUTED, SERIES, as_svg, drawing, wrapped
from idat_zoo.report.ranks import Ranks


def draw_ranks(ranks: Ranks, name: str) -> str:
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
            f"average rank over {len(ranks.tasks)} tasks; critical difference "
            f"{ranks.critical_difference:.2f}",
            color=INK,
        )
        return as_svg(figure, name, title="Average ranks with the critical difference", tips=tips)
