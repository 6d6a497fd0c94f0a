"""Time `idat train --jobs N` against one process with as many threads in all, in turn.

    python benchmarks/jobs.py [--jobs N] [--epochs N] [--adapter NAME] [--repeats N]

Whole commands that train the mini suite's tasks, with all that is before and after: imports,
drawing of the images, evaluation. Decoded images and raw-pixel baselines are in a cache before.
Writes benchmarks/results/jobs.cpu.json.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tables import RATIO, Pairs, keep_table

from idat_zoo.data.reading import usable_cores
from idat_zoo.engine.precision import find_device
from idat_zoo.engine.timing import seconds
from idat_zoo.places import CACHE_VARIABLE
from idat_zoo.registry import load_registry, task_suites

IDAT = str(Path(sys.executable).with_name("idat"))


class Bench:
    """The command of one set of runs, in one process or in several."""

    def __init__(self, tasks: str, adapter: str, pair: str, place: Path) -> None:
        self._place, self._count = place, 0
        self._words = ["train", "--task", tasks, "--adapter", adapter, "--pair", pair]

    def train(self, jobs: int, epochs: int) -> None:
        """The whole command on all cores, into a new folder."""
        self._count += 1
        out = self._place / str(self._count)
        words = [*self._words, "--device", "cpu", "--jobs", str(jobs), "--out", str(out)]
        own = {"OMP_NUM_THREADS": str(usable_cores()), CACHE_VARIABLE: str(self._place / "cache")}
        subprocess.run(
            [IDAT, *words, f"epochs={epochs}", f"warmup_epochs={min(10, epochs - 1)}"],
            env=os.environ | own,
            check=True,
            capture_output=True,
        )


def main() -> None:
    """Time both in turn."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--pair", default="micro")
    parser.add_argument("--adapter", default="lora")
    parser.add_argument("--tasks", default="mini")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    cpu, found = find_device("cpu"), Pairs([], [])
    runs = len(task_suites(load_registry())["mini"]) if asked.tasks == "mini" else None
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(asked.tasks, asked.adapter, asked.pair, Path(place))
        bench.train(asked.jobs, 1)  # to fill the cache
        for _ in range(asked.repeats):
            found.theirs.append(seconds(lambda: bench.train(1, asked.epochs), cpu))
            found.ours.append(seconds(lambda: bench.train(asked.jobs, asked.epochs), cpu))
    one, several = found.medians
    keep_table(
        "jobs.cpu",
        ["runs", "epochs", "one process, s", f"{asked.jobs} processes, s", *RATIO],
        [
            [
                f"{runs or len(asked.tasks.split(','))} ({asked.tasks})",
                str(asked.epochs),
                f"{one:.1f}",
                f"{several:.1f}",
                *found.cells(),
            ]
        ],
        device=cpu,
        how=f"whole commands, pair {asked.pair}, {asked.adapter}, {usable_cores()} threads in one "
        f"process or {max(1, usable_cores() // asked.jobs)} in each of {asked.jobs}; medians of "
        f"{asked.repeats} interleaved pairs",
    )


if __name__ == "__main__":
    main()
