"""What the timings share: seconds, ratios, and a table kept with its machine and command."""

import json
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from idat_zoo.engine.precision import describe_device
from idat_zoo.engine.timing import seconds
from idat_zoo.versions import versions

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Pairs:
    """Two things timed in turn, so that both feel the same load."""

    theirs: list[float]
    ours: list[float]

    @property
    def medians(self) -> tuple[float, float]:
        """Seconds of each."""
        return statistics.median(self.theirs), statistics.median(self.ours)

    @property
    def ratios(self) -> list[float]:
        """How many times longer theirs took, pair by pair."""
        return [their / our for their, our in zip(self.theirs, self.ours, strict=True)]

    def cells(self) -> list[str]:
        """The median ratio and the range of all."""
        found = self.ratios
        return [f"{statistics.median(found):.2f}", f"{min(found):.2f}–{max(found):.2f}"]


RATIO = ["times faster", "range"]
"""The columns of `Pairs.cells`."""


def time_pairs(
    theirs: Callable[[], object],
    ours: Callable[[], object],
    device: torch.device,
    *,
    repeats: int,
) -> Pairs:
    """Each once to warm up, then in turn."""
    theirs()
    ours()
    found = Pairs([], [])
    for _ in range(repeats):
        found.theirs.append(seconds(theirs, device))
        found.ours.append(seconds(ours, device))
    return found


def keep_table(
    name: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    device: torch.device,
    how: str,
) -> None:
    """Print a table and write it to results/NAME.json, as docs/write_tables.py reads it."""
    script = Path(sys.argv[0])
    command = shlex.join([f"{script.parent.name}/{script.name}", *sys.argv[1:]])
    told = ", ".join(f"{package} {version}" for package, version in versions().items())
    document = {
        "columns": columns,
        "rows": rows,
        "note": f"{describe_device(device)}; {told}; {how}; `python {command}`",
    }
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{name}.json"
    target.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    print(target)
