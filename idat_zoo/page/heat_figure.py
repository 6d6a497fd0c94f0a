"""The heat table as a figure, for places that show no HTML, such as a README."""

from idat_zoo.page.figures import GRID, INK, MUTED, SERIES, Drawing, drawing, wrapped
from idat_zoo.page.heat import Heat
from idat_zoo.report.cells import percent

DARKEST = 0.45
"""The opacity of a cell at 100 %, on which text can still be read."""


def draw_heat(heat: Heat, name: str, *, title: str) -> Drawing:
    """The figure: methods by tasks, darker the further above chance; what leads is bold."""
    rows = [*(method.name for method in heat.methods), "chance", "raw pixels"]
    labels, height = wrapped(rows)
    size = (2.3 + 0.78 * len(heat.tasks), 0.55 + height * len(rows))
    with drawing(*size) as (figure, axes):
        axes.grid(visible=False)
        axes.set_xlim(-0.5, len(heat.tasks) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        for down, method in enumerate(heat.methods):
            for right, task in enumerate(heat.tasks):
                cell = method.cells.get(task)
                if cell is None:
                    axes.text(right, down, "–", ha="center", va="center", color=MUTED)
                    continue
                axes.axvspan(
                    right - 0.5,
                    right + 0.5,
                    1 - (down + 1) / len(rows),
                    1 - down / len(rows),
                    facecolor=SERIES[0],
                    alpha=DARKEST * cell.shade,
                    linewidth=0,
                )
                weight = "bold" if cell.leads else "normal"
                axes.text(right, down, percent(cell.top1), ha="center", va="center", weight=weight)
        for down, floors in enumerate((heat.chance, heat.raw_pixels), start=len(heat.methods)):
            for right, task in enumerate(heat.tasks):
                text = percent(floors[task]) if task in floors else "–"
                axes.text(right, down, text, ha="center", va="center", color=MUTED)
        axes.axhline(len(heat.methods) - 0.5, color=GRID, linewidth=1)
        axes.xaxis.tick_top()
        axes.set_xticks(range(len(heat.tasks)), list(heat.tasks), color=INK)
        axes.set_yticks(range(len(rows)), labels)
        axes.tick_params(length=0)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        return Drawing(figure, name, title=title)
