"""Small plots for people who look at a terminal, by rich alone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from idat_zoo.cli.screen import plain
from idat_zoo.file_names import LOG_FILE
from idat_zoo.metrics import percent

if TYPE_CHECKING:
    from idat_zoo.report.rows import Row

BLOCKS = "▁▂▃▄▅▆▇█"
LONGEST_CURVE = 40
"""Characters of a curve; of more epochs, the last one of each part is drawn."""
MOST_BARS = 40
BAR_WIDTH = 30
CURVES = (
    ("student_task_loss", "student's loss"),
    ("loss", "loss"),
    ("val_top1", "top-1 on val"),
    ("test_top1", "top-1 on test"),
)
"""The values of a log that are drawn, and what they are called. A student's replaces `loss`."""


def print_bars(rows: "Sequence[Row]", names: Sequence[str]) -> None:
    """A bar from 0 to 100 % for the top-1 of each row, with chance as `|`; none for many rows."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not 0 < len(rows) <= MOST_BARS:
        return
    marked = any(one.name == "chance" for row in rows for one in row.baselines)
    Console().print()
    Console().print(Text("Top-1 on test, 0 to 100 %" + ("; | is chance" if marked else ""), "bold"))
    table = Table.grid(padding=(0, 1, 0, 0))
    for row, name in zip(rows, names, strict=True):
        chance = next((one.top1 for one in row.baselines if one.name == "chance"), None)
        told = Text(plain(f"{row.task} {name}".strip()), overflow="fold")
        table.add_row(told, bar(row.top1.mean, chance=chance), percent(row.top1.mean))
    Console().print(table)


def bar(top1: float, *, chance: float | None) -> str:
    """A bar of a fraction, with a mark at chance: `███|██████      `."""
    filled = round(BAR_WIDTH * top1)
    cells = ["█"] * filled + [" "] * (BAR_WIDTH - filled)
    if chance is not None and chance < 1:
        cells[int(BAR_WIDTH * chance)] = "|"
    return "".join(cells)


def curves(folder: Path) -> list[str]:
    """A line for each curve of a run's log: `loss over 20 epochs: 2.31 █▆▃▂▁ 0.412`."""
    try:
        lines = [json.loads(line) for line in (folder / LOG_FILE).read_text().splitlines()]
    except OSError:
        return []
    known = [(key, name) for key, name in CURVES if len(lines) > 1 and key in lines[-1]]
    if known and known[0][0] == "student_task_loss":
        known = [pair for pair in known if pair[0] != "loss"]
    return [
        f"{name} over {len(lines)} epochs: {curve([line.get(key) for line in lines])}"
        for key, name in known
    ]


def curve(values: Sequence[float | None]) -> str:
    """Values as blocks of eight heights between the lowest and the highest, with both ends."""
    told = [value for value in values if value is not None]
    step = max(1, -(-len(told) // LONGEST_CURVE))
    shown = [told[min(start + step, len(told)) - 1] for start in range(0, len(told), step)]
    low, high = min(shown), max(shown)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    blocks = "".join(BLOCKS[round((value - low) * scale)] for value in shown)
    return f"{told[0]:.3g} {blocks} {told[-1]:.3g}"
