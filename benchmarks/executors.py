"""Time a study of 12 runs by each executor, in turn, in two processes of one thread.

    python tests/slurm_node.py python benchmarks/executors.py [--epochs N] [--repeats N]

Whole commands, with imports, the start and the end of an engine, and the waiting for its answers.
Slurm is left out where `sinfo` does not answer: `tests/slurm_node.py` runs a command beside a Slurm
of one node. Decoded images and raw-pixel baselines are in a cache before. Writes
benchmarks/results/executors.cpu.json.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

from tables import keep_table

from idat_zoo.engine.precision import find_device
from idat_zoo.engine.timing import seconds
from idat_zoo.executors.slurm_queue import NoAnswerError, ask
from idat_zoo.places import CACHE_VARIABLE

IDAT = str(Path(sys.executable).with_name("idat"))
STUDY = """
title = "Twelve runs"
reference = "none"
pair = "micro_random"

[[part]]
tasks = ["digits"]
adapters = ["lora"]
terms = ["none", "mse", "kl"]
seeds = [0, 1, 2, 3]
set = {{epochs = {epochs}, warmup_epochs = 0}}
"""
RUNS = 12
PROCESSES = 2
OPTIONS = {
    "local": ["--jobs", str(PROCESSES)],
    "ray": ["--executor-option", f"workers={PROCESSES}"],
    "slurm": ["--executor-option", f"parallel={PROCESSES}"],
}


class Bench:
    """One study, trained anew at each time."""

    def __init__(self, epochs: int, place: Path) -> None:
        self._place, self._count = place, 0
        (place / "study.toml").write_text(STUDY.format(epochs=epochs), encoding="utf-8")

    def train(self, executor: str) -> None:
        """The whole command, into a new folder."""
        self._count += 1
        out = self._place / str(self._count)
        words = ["study", str(self._place / "study.toml"), "--out", str(out), "--device", "cpu"]
        own = {CACHE_VARIABLE: str(self._place / "cache"), "OMP_NUM_THREADS": str(PROCESSES)}
        subprocess.run(
            [IDAT, *words, "--executor", executor, *OPTIONS[executor]],
            env=os.environ | own,
            check=True,
            capture_output=True,
        )
        assert len(list(out.rglob("result.json"))) == RUNS


def engines() -> dict[str, str]:
    """The executors that can be tried here, with the names and versions of their engines."""
    found = {"local": "local", "ray": f"Ray {version('ray')}"}
    try:
        return found | {"slurm": ask("sinfo", "--version").strip()}
    except NoAnswerError as error:
        print(f"Slurm is left out: {error}", file=sys.stderr)
        return found


def main() -> None:
    """Time all in turn."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    cpu, names = find_device("cpu"), engines()
    taken: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(asked.epochs, Path(place))
        bench.train("local")  # to fill the cache
        for _ in range(asked.repeats):
            for name in names:
                taken[name].append(seconds(partial(bench.train, name), cpu))
    rows = []
    for name, own in taken.items():
        more = [one - local for one, local in zip(own, taken["local"], strict=True)]
        over = [f"{median(more):.1f}", f"{min(more):.1f}–{max(more):.1f}"]
        rows.append([names[name], f"{median(own):.1f}", *(over if name != "local" else ["", ""])])
    keep_table(
        "executors.cpu",
        ["executor", "12 runs, s", "over local, s", "range"],
        rows,
        device=cpu,
        how=f"whole commands, {RUNS} runs of {asked.epochs} epochs of digits, pair micro_random, "
        f"lora, {PROCESSES} processes of one thread; medians of {asked.repeats} interleaved rounds",
    )


if __name__ == "__main__":
    main()
