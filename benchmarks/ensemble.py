"""Time an ensemble of six settings against the six runs, one by one.

    python benchmarks/ensemble.py [--pair NAME] [--adapter NAME] [--epochs N] [--stack N …]

Both are whole runs in turn, from loading the images to the result, on the same images and weights:
six calls of `idat_zoo.run`, and one with `selection = "ensemble"` over 3 learning rates x 2 weight
decays. With `--stack N`, up to N members share a pass; the six runs have passes of their own. A
ratio above 1 means that the ensemble took longer. Writes benchmarks/results/ensemble.<device>.json.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from tables import Pairs, keep_table, time_pairs

from idat_zoo.candidates import combinations, with_values
from idat_zoo.engine.precision import find_device
from idat_zoo.errors import ZooError
from idat_zoo.recipe import Recipe
from idat_zoo.registry import get_recipe
from idat_zoo.runs.many import run, run_many

GRID = ["candidates.lr=[1e-3,3e-3,1e-2]", "candidates.weight_decay=[0,1e-4]"]


def time_both(
    recipe: Recipe, device: torch.device, folder: Path, *, stack: int, repeats: int
) -> Pairs:
    """The six runs and the ensemble in turn, each time in a new folder."""
    singles = [with_values(recipe, values) for values in combinations(recipe)]

    def one_by_one() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            for one in singles:
                run(one, device=str(device), out=out)

    def together() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            (outcome,) = run_many([(recipe, 0)], device=str(device), out=out, stack=stack)
            if isinstance(outcome, ZooError):
                raise outcome

    return time_pairs(one_by_one, together, device, repeats=repeats)


def main() -> None:
    """Time every size of a pass that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pair", default="micro")
    parser.add_argument("--adapter", default="lora")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--stack", type=int, nargs="+", default=[1, 6])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    device = find_device(asked.device)
    words = [f"epochs={asked.epochs}", "warmup_epochs=1", "selection=ensemble", *GRID]
    recipe = get_recipe("digits", asked.adapter, pair=asked.pair, overrides=words)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for stack in asked.stack:
            found = time_both(recipe, device, Path(folder), stack=stack, repeats=asked.repeats)
            six, ensemble = found.medians
            ratios = [1 / ratio for ratio in found.ratios]
            rows.append(
                [
                    asked.pair,
                    asked.adapter,
                    str(stack),
                    f"{six:.1f}",
                    f"{ensemble:.1f}",
                    f"{statistics.median(ratios):.2f}",
                    f"{min(ratios):.2f}–{max(ratios):.2f}",
                ]
            )
    keep_table(
        f"ensemble.{device.type}",
        [
            *("pair", "adapter", "members in a pass", "six runs, s", "ensemble, s"),
            *("times the six runs", "range"),
        ],
        rows,
        device=device,
        how=f"medians of {asked.repeats} interleaved pairs of {asked.epochs} epochs",
    )


if __name__ == "__main__":
    main()
