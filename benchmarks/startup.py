"""Time what a person waits for before anything happens.

    python benchmarks/startup.py [--repeats N] [--against COMMIT]

Whole processes: a Python that imports torch and timm alone, `idat --help`, `idat list`, the
evaluation of an adapter that ships, the prediction of one image, and a training of digits until
its first optimisation step is done. With --against, each command of another commit takes turns with
ours, with its own code and this environment's packages; a ratio is our time by theirs: below 1,
ours is faster. Writes benchmarks/results/startup.json.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from beside import ROOT, checkout
from PIL import Image
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
IDAT = "from idat_zoo.cli import main; main()"  # as the installed `idat` does
IMAGE = "one.png"
WAITS: Mapping[str, Sequence[str]] = {
    "python, import torch and timm": ["import torch, timm"],
    "idat --help": [IDAT, "--help"],
    "idat list": [IDAT, "list"],
    "idat eval": [IDAT, "eval", "--checkpoint", "builtin:digits-lora"],
    "idat predict": [IDAT, "predict", "--checkpoint", "builtin:digits-lora", IMAGE],
    "first training step of digits": [FIRST_STEP],
}
OURS_ALONE = {"python, import torch and timm", "first training step of digits"}
"""What is not compared: the first has no code of ours, the other's names have moved since."""


def wait(words: Sequence[str], tree: Path, folder: Path) -> float:
    """Seconds of a process that runs the code of a tree in a folder.

    Its bytecode is kept, as that of installed packages is.
    """
    env = os.environ | {"PYTHONPATH": str(tree), "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    work = partial(
        subprocess.run,
        [sys.executable, "-c", *words],
        check=True,
        capture_output=True,
        cwd=folder,
        env=env,
    )
    return seconds(work, find_device("cpu"))


def cells(ours: Sequence[float], theirs: Sequence[float]) -> list[str]:
    """Our median and range; with theirs, their median, and the ratios of the pairs."""
    own = [f"{statistics.median(ours):.2f}", f"{min(ours):.2f}–{max(ours):.2f}"]
    if not theirs:
        return [*own, "", "", ""]
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return [
        *own,
        f"{statistics.median(theirs):.2f}",
        f"{statistics.median(ratios):.2f}",
        f"{min(ratios):.2f}–{max(ratios):.2f}",
    ]


def main() -> None:
    """Time every command, in turn; each once before, so that all have their caches."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--against", metavar="COMMIT")
    asked = parser.parse_args()
    ours: dict[str, list[float]] = {name: [] for name in WAITS}
    theirs: dict[str, list[float]] = {name: [] for name in WAITS}
    other = nullcontext(None) if asked.against is None else checkout(asked.against)
    with tempfile.TemporaryDirectory() as place, other as tree:
        folder = Path(place)
        Image.new("RGB", (48, 48), "grey").save(folder / IMAGE)
        for turn in range(asked.repeats + 1):
            for name, words in WAITS.items():
                if tree is not None and name not in OURS_ALONE:
                    theirs[name].append(wait(words, tree, folder))
                ours[name].append(wait(words, ROOT, folder))
            if not turn:  # to warm up
                for own in (*ours.values(), *theirs.values()):
                    own.clear()
    columns = ["command", "seconds", "range"]
    rows = [[name, *cells(ours[name], theirs[name])] for name in WAITS]
    how = f"medians of {asked.repeats} processes each, in turn"
    if asked.against:
        columns += [f"at {asked.against}, seconds", "ours : theirs", "least–most"]
    else:
        rows = [row[: len(columns)] for row in rows]
    keep_table("startup", columns, rows, device=find_device("cpu"), how=how)


if __name__ == "__main__":
    main()
