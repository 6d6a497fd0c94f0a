"""Time passes of several runs against one run at the batch that saturates the device.

    python benchmarks/saturation.py [--pair NAME] [--adapter NAME] [--runs K …] [--batch B …]

A pass of K runs at batch B each computes K x B images a step. A single run with a batch as large
may be as fast, so a factor over one small batch says little about a device that was idle before.
Each cell therefore has two ratios of images/s: to one run at the same batch B, and to one run at
the saturating batch. That is the smallest of the batches B, 2 B, 4 B … from the smallest one asked
for, over which no larger one gains 5 %; they are timed up to `--largest`, to the device's memory,
and for half of `--limit` at most. What is compared is timed in turn. A cell that does not fit into
the device's memory says so, as does one that would begin after `--limit` seconds. Writes
benchmarks/results/saturation.<device>.json.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from setting import Epochs, flops_of_epoch, learner_for, matmul_peak, noise, recipe_for
from tables import Pairs, keep_table, time_pairs

from idat_zoo.backbones.pair import Backbones
from idat_zoo.engine.memory import step_bytes
from idat_zoo.engine.precision import computing, find_device
from idat_zoo.errors import DeviceError
from idat_zoo.recipe import Recipe
from idat_zoo.runs.memory_errors import plain_memory_errors
from idat_zoo.switches import Switches

Made = TypeVar("Made")

GAIN = 1.05
"""The ratio of images/s from which a larger batch counts as faster."""
TOO_LARGE, TOO_LATE = "out of memory", "no time left"


@dataclass(frozen=True)
class Setting:
    """What is equal in all cells."""

    pair: str
    adapter: str
    device: torch.device
    repeats: int
    steps: int

    def recipe(self, batch: int) -> Recipe:
        """The recipe of each run."""
        return recipe_for(self.pair, self.adapter, batch, self.device)


class Pass:
    """An epoch of some runs in one pass, with one batch size."""

    def __init__(self, setting: Setting, backbones: Backbones, runs: int, batch: int) -> None:
        recipe = setting.recipe(batch)
        images, targets = noise(recipe, batch * setting.steps)
        self.learners = [
            learner_for(recipe, images, targets, backbones, seed=seed) for seed in range(runs)
        ]
        self.epoch = Epochs(self.learners)
        self.images = runs * batch * setting.steps

    def memory(self, device: torch.device) -> float:
        """The GiB at the peak of an epoch; on other devices than CUDA, those that a step keeps."""
        if device.type != "cuda":
            return len(self.learners) * step_bytes(self.learners[0]) / 2**30
        torch.cuda.reset_peak_memory_stats(device)
        self.epoch()
        return torch.cuda.max_memory_allocated(device) / 2**30


def per_image(theirs: Pass, ours: Pass, setting: Setting) -> Pairs:
    """Both in turn, in seconds per image, so that a ratio is one of images/s."""
    found = time_pairs(theirs.epoch, ours.epoch, setting.device, repeats=setting.repeats)
    return Pairs(
        [one / theirs.images for one in found.theirs], [one / ours.images for one in found.ours]
    )


def unless_too_large(work: Callable[[], Made], setting: Setting) -> Made | None:
    """The result; None if the device's memory is too small. Memory in use is freed before."""
    gc.collect()
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        with plain_memory_errors(setting.recipe(batch=1)):
            return work()
    except DeviceError:
        return None


def saturating_batch(
    smallest: int, largest: int, gain: Callable[[int, int], float | None]
) -> tuple[int, int]:
    """The saturating batch, and the largest one that was timed.

    `gain(a, b)` is the images/s at batch b, divided by those at batch a; None if b does not fit
    into memory or no time is left.
    """
    found = timed = smallest
    while 2 * timed <= largest:
        ratio = gain(found, 2 * timed)
        if ratio is None:
            break
        timed *= 2
        if ratio >= GAIN:
            found = timed
    return found, timed


def time_cell(setting: Setting, runs: int, batch: int, saturating: int, peak: float) -> list[str]:
    """One row: images/s of the pass, both ratios with their ranges, memory, share of the peak."""
    backbones = Backbones(setting.device)
    together = Pass(setting, backbones, runs, batch)
    same = per_image(Pass(setting, backbones, 1, batch), together, setting)
    filled = per_image(Pass(setting, backbones, 1, saturating), together, setting)
    speed = 1 / filled.medians[1]
    done = flops_of_epoch(together.epoch) / together.images * speed
    return [
        str(runs),
        str(batch),
        f"{speed:.0f}",
        *same.cells(),
        *filled.cells(),
        f"{together.memory(setting.device):.2f}",
        f"{100 * done / peak:.0f}",
    ]


def time_cells(
    setting: Setting, runs: Sequence[int], batches: Sequence[int], saturating: int, limit: float
) -> list[list[str]]:
    """All rows; `limit` is the time on the clock after which none begins."""
    peak = matmul_peak(setting.device, setting.recipe(batch=1).precision)
    rows = []
    for batch in batches:
        for count in runs:
            late = time.perf_counter() > limit
            cells = None
            if not late:
                cells = unless_too_large(
                    lambda count=count, batch=batch: time_cell(  # type: ignore[misc]
                        setting, count, batch, saturating, peak
                    ),
                    setting,
                )
            if cells is None:
                cells = [str(count), str(batch), TOO_LATE if late else TOO_LARGE, *[""] * 6]
            print(" ".join(cells), flush=True)
            rows.append(cells)
    return rows


def main() -> None:
    """Find the saturating batch, then time every cell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pair", default="micro")
    parser.add_argument("--adapter", default="sequential")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--largest", type=int, default=4096, help="batch of one run")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="in each repeat")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds")
    asked = parser.parse_args()
    began = time.perf_counter()
    device = find_device(asked.device)
    setting = Setting(asked.pair, asked.adapter, device, asked.repeats, asked.steps)

    def gain(smaller: int, larger: int) -> float | None:
        def compare() -> float:
            backbones = Backbones(device)
            one, other = (Pass(setting, backbones, 1, batch) for batch in (smaller, larger))
            found = per_image(one, other, setting)
            speeds = " and ".join(f"{1 / each:.0f}" for each in found.medians)
            print(f"batch {smaller} and {larger}: {speeds} images/s", flush=True)
            return statistics.median(found.ratios)

        late = time.perf_counter() > began + asked.limit / 2
        return None if late else unless_too_large(compare, setting)

    with computing(Switches(), device):
        saturating, timed = saturating_batch(min(asked.batch), asked.largest, gain)
        rows = time_cells(setting, asked.runs, asked.batch, saturating, began + asked.limit)
    keep_table(
        f"saturation.{device.type}",
        [
            "runs",
            "batch of each",
            "images/s",
            "times one run at this batch",
            "range",
            "times one run at the saturating batch",
            "range",
            "peak memory, GiB" if device.type == "cuda" else "kept by a step, GiB",
            "% of matmul peak",
        ],
        rows,
        device=device,
        how=f"pair {asked.pair}, {asked.adapter}; the saturating batch of one run is {saturating}, "
        f"the largest timed {timed}; ratios of images/s, medians of {asked.repeats} interleaved "
        f"pairs of {asked.steps} steps",
    )


if __name__ == "__main__":
    main()
