"""Write the pictures of README.md from the runs of the study `inverse` that are committed.

    python docs/write_pictures.py       docs/pictures/{scores,gains}-{light,dark}.svg

The methods are those with all six tasks, and the gains are of iDAT's term over no coupling. It
needs the extra `report`. The bytes depend on the version of matplotlib.
"""

from pathlib import Path

from idat_zoo.files import write_whole
from idat_zoo.page.contrast import Contrasts
from idat_zoo.page.entries import build_entries
from idat_zoo.page.figures import Drawing, standalone
from idat_zoo.page.gains import draw_forest, reference_forests
from idat_zoo.page.heat import build_heat
from idat_zoo.page.heat_figure import draw_heat
from idat_zoo.page.write import schemes
from idat_zoo.registry import averaged_tasks, load_registry
from idat_zoo.report.build import build_report, sorted_groups
from idat_zoo.results import find_results

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs/pictures"
METHOD, REFERENCE = "lora, with micro_teacher, mse", "lora, with micro_teacher, no distillation"


def figures() -> dict[str, Drawing]:
    """The figures by the names of their files, with the colours of a page."""
    registry = load_registry()
    averaged = averaged_tasks(registry)
    found = find_results([ROOT / "benchmarks/results/inverse"])
    report = build_report(found, averaged=averaged, read_options=registry.read_options)
    groups, _ = sorted_groups(found, averaged, registry.read_options)
    entries = build_entries(report.rows, groups)
    tasks = {entry.task for entry in entries}
    widest = [
        entry
        for entry in entries
        if {own.task for own in entries if own.method == entry.method} == tasks
    ]
    contrasts = Contrasts(widest)
    gains = reference_forests(widest, contrasts, REFERENCE)
    (forest,) = [own for own in gains if own.method == METHOD]
    heat = build_heat(widest, report.means, contrasts)
    return {
        "scores": draw_heat(
            heat,
            "scores",
            title=f"Top-1 of {len(heat.methods)} methods on {len(heat.tasks)} tasks, %",
        ),
        "gains": draw_forest(forest, "gains", over="over no coupling"),
    }


def main() -> None:
    """Write all pictures."""
    PICTURES.mkdir(exist_ok=True)
    for name, figure in figures().items():
        svg = figure.svg()
        for scheme, colours in schemes().items():
            file = PICTURES / f"{name}-{scheme}.svg"
            write_whole(file, standalone(svg, colours).encode())
            print(file.relative_to(ROOT))


if __name__ == "__main__":
    main()
