"""Time one joint optimisation step of a pair against the released step, written plainly.

    python benchmarks/joint_step.py [--pair NAME …] [--batch N …] [--device D] [--repeats N]

Ours is the engine's, with what it does around the step; theirs is reference.py's. Prints a table,
and writes it to benchmarks/results/joint_step.<device>.json with the machine, the versions and the
command.
"""

import argparse
import itertools
import statistics

import torch
from reference import ReferenceLoop
from tables import keep_table, seconds
from torch import Tensor

from idat_zoo.backbones.pair import Backbones, Role, build_pair
from idat_zoo.engine.precision import find_device, resolve_precision
from idat_zoo.engine.train import Learner, Trainer
from idat_zoo.randomness import generator
from idat_zoo.registry import get_recipe


def time_pair(
    pair: str, adapter: str, batch: int, device: torch.device, *, repeats: int, steps: int
) -> list[str]:
    """One row: the reference's and our time for a step, their ratio and its range, our speed.

    Each repeat times the reference and then ours on the same images, so that both feel the same
    load; the ratio is the median over the repeats.
    """
    words = [f"batch_size={batch}", "epochs=1000"]
    recipe = get_recipe("digits", adapter, pair=pair, overrides=words)
    recipe = resolve_precision(recipe, device)
    size = recipe.pair.student.img_size
    source = generator(0, "benchmark", "images")
    images = torch.randint(256, (batch * steps, 3, size, size), generator=source, dtype=torch.uint8)
    targets = torch.randint(10, (len(images),), generator=source)
    theirs_pair, ours_pair = (
        build_pair(recipe, seed=0, backbones=Backbones(device)) for _ in range(2)
    )
    reference = ReferenceLoop(theirs_pair, recipe, device=device)
    both: dict[Role, Tensor] = {"student": images, "teacher": images}
    learner = Learner(ours_pair, both, targets, recipe, seed=0)
    learner.cache_prefixes()
    trainer = Trainer([learner])

    def train_reference() -> None:
        for part, labels in zip(images.split(batch), targets.split(batch), strict=True):
            reference.step(part, labels)

    train_reference()  # warm up
    trainer.train_epoch(0)
    theirs, ours = [], []
    for repeat in range(repeats):
        theirs.append(seconds(train_reference, device) / steps)
        ours.append(seconds(lambda epoch=repeat + 1: trainer.train_epoch(epoch), device) / steps)
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    median = statistics.median(ours)
    return [
        pair,
        adapter,
        str(batch),
        recipe.precision,
        f"{1000 * statistics.median(theirs):.0f}",
        f"{1000 * median:.0f}",
        f"{statistics.median(ratios):.2f}",
        f"{min(ratios):.2f}–{max(ratios):.2f}",
        f"{batch / median:.0f}",
    ]


def main() -> None:
    """Time every pair asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pair", nargs="+", default=["micro", "vit_ti_to_vit_s_random"])
    parser.add_argument("--adapter", default="sequential")
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 16], help="one for each pair")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="in each repeat")
    asked = parser.parse_args()
    device = find_device(asked.device)
    rows = [
        time_pair(pair, asked.adapter, batch, device, repeats=asked.repeats, steps=asked.steps)
        for pair, batch in zip(asked.pair, itertools.cycle(asked.batch), strict=False)
    ]
    keep_table(
        f"joint_step.{device.type}",
        [
            "pair",
            "adapter",
            "batch",
            "precision",
            "reference, ms",
            "ours, ms",
            "times faster",
            "range",
            "images/s",
        ],
        rows,
        device=device,
        how=f"medians of {asked.repeats} interleaved pairs of {asked.steps} steps",
    )


if __name__ == "__main__":
    main()
