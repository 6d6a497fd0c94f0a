"""Time a training step with LoRA in the last half of the blocks against one with LoRA in all.

    python benchmarks/last_blocks.py [--pair NAME] [--batch N] [--blocks last6] [--device D]

The pair's student alone, as `idat train` runs it by default: nothing before the first adapter is
computed again or gets a gradient. Writes benchmarks/results/last_blocks.<device>.json.
"""

import argparse

import torch
from setting import MANY_EPOCHS, Epochs, learner_for, noise
from tables import RATIO, keep_table, time_pairs

from idat_zoo.backbones.pair import Backbones
from idat_zoo.engine.precision import computing, find_device, resolve_precision
from idat_zoo.recipe import Recipe
from idat_zoo.registry import get_recipe
from idat_zoo.switches import Switches


def recipe_of(pair: str, batch: int, blocks: str, device: torch.device) -> Recipe:
    """LoRA in some blocks, without a teacher and without drop path."""
    words = [f"batch_size={batch}", MANY_EPOCHS, "drop_path=0", f"adapter.blocks={blocks}"]
    recipe = get_recipe("digits", "lora", pair=pair, teacher="none", overrides=words)
    return resolve_precision(recipe, device)


def main() -> None:
    """One row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pair", default="vit_ti_to_vit_s_random")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--blocks", default="last6")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--steps", type=int, default=2, help="in each repeat")
    asked = parser.parse_args()
    device = find_device(asked.device)
    epochs = {}
    with computing(Switches(), device):
        for blocks in ("all", asked.blocks):
            recipe = recipe_of(asked.pair, asked.batch, blocks, device)
            images, targets = noise(recipe, asked.batch * asked.steps)
            epochs[blocks] = Epochs([learner_for(recipe, images, targets, Backbones(device))])
        whole, last = epochs.values()
        found = time_pairs(whole, last, device, repeats=asked.repeats)
    every, some = (f"{1000 * one / asked.steps:.0f}" for one in found.medians)
    keep_table(
        f"last_blocks.{device.type}",
        ["backbone", "batch", "blocks", "all blocks, ms", "these, ms", *RATIO],
        [[recipe.pair.student.name, str(asked.batch), asked.blocks, every, some, *found.cells()]],
        device=device,
        how=f"LoRA; medians of {asked.repeats} interleaved pairs of {asked.steps} steps",
    )


if __name__ == "__main__":
    main()
