"""Time the joint step with each switch alone turned over, against all at their defaults.

    python benchmarks/toggle.py [--pair NAME] [--batch N] [--adapter NAME …] [--device D]

A ratio above 1 says that the step is faster with the switch on. Those that a process cannot turn
back are timed in child processes, in turn: `keep_memory` on a CPU, also for six runs in one pass,
and `deterministic` on CUDA. Compiling itself is not in the step's time but in a column of its own.
Writes benchmarks/results/toggle.<device>.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from setting import Epochs, learner_for, noise, recipe_for
from tables import Pairs, keep_table, time_pairs

from idat_zoo.backbones.pair import Backbones
from idat_zoo.engine.precision import computing, find_device
from idat_zoo.engine.timing import seconds
from idat_zoo.switches import Switches

IN_ONE_PROCESS = ("prefix_cache", "fused", "compile")
IN_CHILDREN = {"cpu": [("keep_memory", 1), ("keep_memory", 6)], "cuda": [("deterministic", 1)]}


def epochs_with(
    asked: argparse.Namespace, adapter: str, switches: Switches, *, runs: int = 1
) -> Epochs:
    """The engine's epochs under some switches."""
    device = find_device(asked.device)
    recipe = recipe_for(asked.pair, adapter, asked.batch, device)
    images, targets = noise(recipe, asked.batch * asked.steps)
    backbones, cached = Backbones(device), switches.prefix_cache
    learners = [
        learner_for(recipe, images, targets, backbones, seed=seed, prefix_cache=cached)
        for seed in range(runs)
    ]
    return Epochs(learners, switches)


def time_here(asked: argparse.Namespace, adapter: str, name: str) -> tuple[Pairs, float]:
    """Off and on in turn; and the seconds until the first step with it on is done."""
    device = find_device(asked.device)
    off, on = (Switches(**{"fused": False, name: value}) for value in (False, True))
    started = time.perf_counter()
    epoch = epochs_with(asked, adapter, on)
    epoch()
    begun = time.perf_counter() - started
    without = epochs_with(asked, adapter, off)
    return time_pairs(without, epoch, device, repeats=asked.repeats), begun


def time_in_children(asked: argparse.Namespace, adapter: str, name: str, runs: int) -> Pairs:
    """A process for each time, off and on in turn."""
    found = Pairs([], [])
    for _ in range(asked.repeats):
        for value, times in ((False, found.theirs), (True, found.ours)):
            child = json.dumps({"adapter": adapter, "runs": runs, name: value})
            done = subprocess.run(
                [sys.executable, *sys.argv, "--child", child],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            times.append(float(done.stdout))
    return found


def be_child(asked: argparse.Namespace) -> None:
    """Print the median seconds of an epoch under the switches that the parent asked for."""
    words = json.loads(asked.child)
    adapter, runs, device = words.pop("adapter"), words.pop("runs"), find_device(asked.device)
    switches = Switches(**words)
    with computing(switches, device):
        epoch = epochs_with(asked, adapter, switches, runs=runs)
        epoch()
        print(statistics.median(seconds(epoch, device) for _ in range(3)))


def row(name: str, adapter: str, found: Pairs, steps: int, begun: str) -> list[str]:
    """Milliseconds of a step off and on, their ratio and its range."""
    off, on = (1000 * one / steps for one in found.medians)
    return [name, adapter, f"{off:.1f}", f"{on:.1f}", *found.cells(), begun]


def main() -> None:
    """Time every switch."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pair", default="micro")
    parser.add_argument("--adapter", nargs="+", default=["sequential", "lora"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="in each repeat")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    # compiled anew, as at a person's first run
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()
    if asked.child:
        be_child(asked)
        return
    device = find_device(asked.device)
    rows = []
    for adapter in asked.adapter:
        for name in IN_ONE_PROCESS:
            found, begun = time_here(asked, adapter, name)
            rows.append(row(name, adapter, found, asked.steps, f"{begun:.1f}"))
        for name, runs in IN_CHILDREN.get(device.type, []):
            found = time_in_children(asked, adapter, name, runs)
            label = f"{name}, {runs} runs" if runs > 1 else name
            rows.append(row(label, adapter, found, asked.steps, ""))
    keep_table(
        f"toggle.{device.type}",
        ["switch", "adapter", "off, ms", "on, ms", "off : on", "range", "to the first epoch, s"],
        rows,
        device=device,
        how=f"pair {asked.pair}, batch {asked.batch}; medians of {asked.repeats} interleaved pairs "
        f"of {asked.steps} steps; plain AdamW in the others' rows",
    )


if __name__ == "__main__":
    main()
