"""Time a training step of one network with our LoRA against PEFT's on the same timm ViT.

    python benchmarks/peft_step.py [--pair NAME …] [--batch N …] [--device D]

The pair's student alone. PEFT adapts the fused qkv with one A and one B of rank 2R, ours q and v
with one of rank R each: the same 2R columns on the way down. Both train the head too, with AdamW,
on the same uint8 images in the device's memory, without drop path. Ours is what `idat train` runs
by default, with the prefix cache; `--plain` leaves it out, as PEFT has none. Needs the extra
`test`. Writes benchmarks/results/peft_step.<device>.json, or peft_step_plain.<device>.json.
"""

import argparse
import itertools
from importlib import metadata

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from setting import Epochs, learner_for, noise, recipe_for
from tables import RATIO, keep_table, time_pairs
from torch import Tensor, nn

from idat_zoo.backbones.build import input_range
from idat_zoo.backbones.frozen import load_backbone
from idat_zoo.backbones.pair import Backbones
from idat_zoo.engine.precision import autocast, computing, find_device
from idat_zoo.recipe import Recipe
from idat_zoo.switches import Switches

RANK = 8


class PeftEpochs:
    """PEFT's LoRA on the same backbone; one epoch at a call."""

    def __init__(self, recipe: Recipe, images: Tensor, targets: Tensor) -> None:
        assert recipe.precision != "auto"
        self.precision, self.batch = recipe.precision, recipe.batch_size
        self.images, self.targets = images, targets
        backbone = load_backbone(recipe.pair.student)
        backbone.body.head = nn.Linear(backbone.body.embed_dim, recipe.task.num_classes)
        config = LoraConfig(r=2 * RANK, target_modules=["qkv"], modules_to_save=["head"])
        self.model = get_peft_model(backbone.body, config).to(images.device)
        mean, std = input_range(backbone, recipe.normalisation)
        self.mean, self.std = (
            torch.tensor(values, device=images.device).view(3, 1, 1) for values in (mean, std)
        )
        learnt = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(learnt, lr=recipe.lr)

    def __call__(self) -> None:
        """Every batch once."""
        batches = zip(self.images.split(self.batch), self.targets.split(self.batch), strict=True)
        for images, targets in batches:
            with autocast(images.device, self.precision):
                logits = self.model((images / 255 - self.mean) / self.std)
            F.cross_entropy(logits.float(), targets).backward()
            self.optimiser.step()
            self.optimiser.zero_grad()


def time_backbone(
    pair: str, batch: int, device: torch.device, *, repeats: int, steps: int, prefix_cache: bool
) -> list[str]:
    """One row: PEFT's time of a step, ours, their ratio."""
    recipe = recipe_for(pair, "lora", batch, device, teacher="none")
    recipe = recipe.model_copy(update={"drop_path": 0.0})
    images, targets = noise(recipe, batch * steps)
    theirs = PeftEpochs(recipe, images.to(device), targets.to(device))
    own = learner_for(recipe, images, targets, Backbones(device), prefix_cache=prefix_cache)
    ours = Epochs([own])
    found = time_pairs(theirs, ours, device, repeats=repeats)
    their, our = (1000 * one / steps for one in found.medians)
    name, precision = recipe.pair.student.name, recipe.precision
    return [name, str(batch), precision, f"{their:.0f}", f"{our:.0f}", *found.cells()]


def main() -> None:
    """Time every backbone asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pair", nargs="+", default=["micro", "vit_ti_to_vit_s_random"])
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 16], help="one for each pair")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--plain", action="store_true", help="without the prefix cache")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--steps", type=int, default=3, help="in each repeat")
    asked = parser.parse_args()
    device = find_device(asked.device)
    with computing(Switches(), device):
        rows = [
            time_backbone(
                pair,
                batch,
                device,
                repeats=asked.repeats,
                steps=asked.steps,
                prefix_cache=not asked.plain,
            )
            for pair, batch in zip(asked.pair, itertools.cycle(asked.batch), strict=False)
        ]
    keep_table(
        f"peft_step{'_plain' if asked.plain else ''}.{device.type}",
        ["backbone", "batch", "precision", "PEFT, ms", "ours, ms", *RATIO],
        rows,
        device=device,
        how=f"peft {metadata.version('peft')}; medians of {asked.repeats} interleaved pairs of "
        f"{asked.steps} steps",
    )


if __name__ == "__main__":
    main()
