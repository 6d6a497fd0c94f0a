"""Time one joint optimisation step of a pair against the released step, written plainly.

    python benchmarks/joint_step.py [--pair NAME …] [--adapter NAME …] [--batch N …] [--compile]

Ours is the engine's, with what it does around the step; theirs is reference.py's. The share of the
peak is that of the operations of our step, counted, in what a large matrix product reaches on the
same device in the same run. Writes benchmarks/results/joint_step.<device>.json.
"""

import argparse
import itertools

import torch
from reference import ReferenceLoop
from setting import Epochs, flops_of_epoch, learner_for, matmul_peak, noise, recipe_for
from tables import RATIO, keep_table, time_pairs

from idat_zoo.backbones.pair import Backbones, build_pair
from idat_zoo.engine.precision import computing, find_device
from idat_zoo.switches import Switches


def time_pair(
    pair: str,
    adapter: str,
    batch: int,
    device: torch.device,
    *,
    repeats: int,
    steps: int,
    switches: Switches,
) -> list[str]:
    """One row: both times of a step, their ratio, our speed, our share of the peak."""
    recipe = recipe_for(pair, adapter, batch, device)
    images, targets = noise(recipe, batch * steps)
    networks = build_pair(recipe, seed=0, backbones=Backbones(device))
    reference = ReferenceLoop(networks, recipe, device=device)
    epoch = Epochs([learner_for(recipe, images, targets, Backbones(device))], switches)

    def train_reference() -> None:
        for part, labels in zip(images.split(batch), targets.split(batch), strict=True):
            reference.step(part, labels)

    found = time_pairs(train_reference, epoch, device, repeats=repeats)
    theirs, ours = (one / steps for one in found.medians)
    done = flops_of_epoch(epoch) / steps / ours
    return [
        pair,
        adapter,
        str(batch),
        recipe.precision,
        f"{1000 * theirs:.0f}",
        f"{1000 * ours:.0f}",
        *found.cells(),
        f"{batch / ours:.0f}",
        f"{100 * done / matmul_peak(device, recipe.precision):.0f}",
    ]


def main() -> None:
    """Time every pair asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pair", nargs="+", default=["micro", "vit_ti_to_vit_s_random"])
    parser.add_argument("--adapter", nargs="+", default=["sequential", "lora"])
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 16], help="one for each pair")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="in each repeat")
    parser.add_argument("--compile", action="store_true")
    asked = parser.parse_args()
    device, switches = find_device(asked.device), Switches(compile=asked.compile)
    with computing(switches, device):
        rows = [
            time_pair(
                pair,
                adapter,
                batch,
                device,
                repeats=asked.repeats,
                steps=asked.steps,
                switches=switches,
            )
            for pair, batch in zip(asked.pair, itertools.cycle(asked.batch), strict=False)
            for adapter in asked.adapter
        ]
    keep_table(
        f"joint_step{'.compiled' if asked.compile else ''}.{device.type}",
        [
            "pair",
            "adapter",
            "batch",
            "precision",
            "reference, ms",
            "ours, ms",
            *RATIO,
            "images/s",
            "% of matmul peak",
        ],
        rows,
        device=device,
        how=f"medians of {asked.repeats} interleaved pairs of {asked.steps} steps",
    )


if __name__ == "__main__":
    main()
