"""Time one joint optimisation step of this checkout against that of another commit, in turn.

    python benchmarks/beside.py COMMIT [--pair NAME …] [--adapter NAME …] [--batch N] [--pairs N]

Each commit runs in a process of its own, with its own code and this environment's packages; one
epoch of four steps each, in turn. Ratios are the other's time by ours: above 1, ours is faster.
Processor time is told beside the clock's, since other programs' load is in the latter. Writes
benchmarks/results/beside.<device>.json.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tables import keep_table

ROOT = Path(__file__).parents[1]
STEPS = 4
WORKER = """
import sys, time, torch
from setting import Backbones, Epochs, learner_for, noise, recipe_for
pair, adapter, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
device = torch.device("cpu")
recipe = recipe_for(pair, adapter, batch, device)
images, targets = noise(recipe, batch * {steps})
epoch = Epochs([learner_for(recipe, images, targets, Backbones(device))])
epoch()
print("ready", flush=True)
for _ in sys.stdin:
    clock, processor = time.perf_counter(), time.process_time()
    epoch()
    print(time.perf_counter() - clock, time.process_time() - processor, flush=True)
"""


class Worker:
    """A checkout's epochs, one whenever it is asked for."""

    def __init__(self, tree: Path, *words: str) -> None:
        path = os.pathsep.join([str(tree), str(tree / "benchmarks")])
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER.format(steps=STEPS), *words],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with {self._process.wait()}")
        return line

    def epoch(self) -> tuple[float, float]:
        """Seconds of one epoch: the clock's and the processor's."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        clock, processor = map(float, self._answer().split())
        return clock, processor

    def end(self) -> None:
        """Stop."""
        self._process.kill()
        self._process.wait()


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """Another commit's files, in a folder that goes again."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(
            ["git", "worktree", "add", "--quiet", "--detach", str(tree), commit],
            cwd=ROOT,
            check=True,
        )
        try:
            yield tree
        finally:
            remove = ["git", "worktree", "remove", "--force", str(tree)]
            subprocess.run(remove, cwd=ROOT, check=True)


def time_both(tree: Path, pair: str, adapter: str, batch: int, pairs: int) -> list[str]:
    """One row: both commits' median milliseconds of a step, and the ratios of the pairs."""
    words = (pair, adapter, str(batch))
    theirs, ours = Worker(tree, *words), Worker(ROOT, *words)
    try:
        found = [(theirs.epoch(), ours.epoch()) for _ in range(pairs)]
    finally:
        theirs.end()
        ours.end()
    cells = list(words)
    for which in (0, 1):
        columns = zip(*((one[which], two[which]) for one, two in found), strict=True)
        cells += [f"{1000 * statistics.median(column) / STEPS:.1f}" for column in columns]
        ratios = sorted(one[which] / two[which] for one, two in found)
        cells += [f"{statistics.median(ratios):.3f}", f"{ratios[0]:.3f}–{ratios[-1]:.3f}"]
    return cells


def main() -> None:
    """Every pair with every adapter."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("commit")
    parser.add_argument("--pair", nargs="+", default=["micro"])
    parser.add_argument("--adapter", nargs="+", default=["lora", "sequential"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=7)
    asked = parser.parse_args()
    with checkout(asked.commit) as tree:
        rows = [
            time_both(tree, pair, adapter, asked.batch, asked.pairs)
            for pair, adapter in itertools.product(asked.pair, asked.adapter)
        ]
    columns = ["pair", "adapter", "batch"]
    for kind in ("clock", "processor"):
        columns += [f"theirs, ms ({kind})", "ours, ms", "ratio", "least–most"]
    keep_table(
        "beside.cpu",
        columns,
        rows,
        device=torch.device("cpu"),
        how=f"against commit {asked.commit}, {asked.pairs} pairs of {STEPS} steps in turn",
    )


if __name__ == "__main__":
    main()
