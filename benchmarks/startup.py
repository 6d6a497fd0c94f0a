"""Time what a person waits for before anything happens.

    python benchmarks/startup.py [--repeats N]

Whole processes: a Python that imports torch and timm alone, `idat --help`, `idat list`, and a
training of digits until its first optimisation step is done. Writes
benchmarks/results/startup.json.
"""

import argparse
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

from tables import keep_table

from idat_zoo.engine.precision import find_device
from idat_zoo.engine.timing import seconds

FIRST_STEP = """
import os, sys, tempfile
from idat_zoo.registry import get_recipe
from idat_zoo.runs.progress import Progress
from idat_zoo.runs.many import run

class UntilTheFirstStep(Progress):
    def step(self):
        sys.stdout.flush()
        os._exit(0)

recipe = get_recipe("digits", "lora")
run(recipe, device="cpu", out=tempfile.mkdtemp(), progress=UntilTheFirstStep())
"""
IDAT = str(Path(sys.executable).with_name("idat"))
WAITS = {
    "python, import torch and timm": [sys.executable, "-c", "import torch, timm"],
    "idat --help": [IDAT, "--help"],
    "idat list": [IDAT, "list"],
    "first training step of digits": [sys.executable, "-c", FIRST_STEP],
}


def main() -> None:
    """Time every command, in turn."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    cpu = find_device("cpu")
    times: dict[str, list[float]] = {name: [] for name in WAITS}
    for _ in range(asked.repeats):
        for name, command in WAITS.items():
            work = partial(subprocess.run, command, check=True, capture_output=True)
            times[name].append(seconds(work, cpu))
    rows = [
        [name, f"{statistics.median(found):.2f}", f"{min(found):.2f}–{max(found):.2f}"]
        for name, found in times.items()
    ]
    keep_table(
        "startup",
        ["command", "seconds", "range"],
        rows,
        device=cpu,
        how=f"medians of {asked.repeats} processes each, in turn",
    )


if __name__ == "__main__":
    main()
