"""What the timings share: runs on generated images, and the peak of matrix multiplication."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from idat_zoo.backbones.pair import Backbones, Role, build_pair
from idat_zoo.engine.learner import Learner
from idat_zoo.engine.precision import DTYPES, resolve_precision
from idat_zoo.engine.timing import seconds
from idat_zoo.engine.train import Trainer
from idat_zoo.randomness import generator
from idat_zoo.recipe import Recipe
from idat_zoo.registry import get_recipe
from idat_zoo.switches import Switches

MANY_EPOCHS = "epochs=1000"


def recipe_for(
    pair: str, adapter: str, batch: int, device: torch.device, *, teacher: str | None = None
) -> Recipe:
    """The recipe of an adapter on ten classes, long enough to be timed for a while."""
    words = [f"batch_size={batch}", MANY_EPOCHS, "drop_path=0.1"]
    recipe = get_recipe("digits", adapter, pair=pair, teacher=teacher, overrides=words)
    return resolve_precision(recipe, device)


def noise(recipe: Recipe, count: int) -> tuple[Tensor, Tensor]:
    """Images and targets that nothing can be learned from."""
    size = recipe.pair.student.img_size
    source = generator(0, "benchmark", "images")
    images = torch.randint(256, (count, 3, size, size), generator=source, dtype=torch.uint8)
    return images, torch.randint(10, (count,), generator=source)


def learner_for(
    recipe: Recipe,
    images: Tensor,
    targets: Tensor,
    backbones: Backbones,
    *,
    seed: int = 0,
    prefix_cache: bool = True,
) -> Learner:
    """A run on these images, as the engine sets it up."""
    pair = build_pair(recipe, seed=seed, backbones=backbones)
    both: dict[Role, Tensor] = {role: images for role, _ in pair.roles()}
    learner = Learner(pair, both, targets, recipe, seed=seed)
    if prefix_cache:
        learner.cache_prefixes()
    return learner


class Epochs:
    """A trainer whose epochs are trained one after the other, whenever one is asked for."""

    def __init__(self, learners: Sequence[Learner], switches: Switches | None = None) -> None:
        self.trainer = Trainer(learners, switches=switches)
        self._numbers = itertools.count()

    def __call__(self) -> None:
        """One epoch."""
        self.trainer.train_epoch(next(self._numbers))


def flops_of_epoch(epoch: Epochs) -> int:
    """The floating-point operations of an epoch's matrix products and attention, counted."""
    with FlopCounterMode(display=False) as counter:
        epoch()
    return int(counter.get_total_flops())


def matmul_peak(device: torch.device, precision: str, *, repeats: int = 9) -> float:
    """Floating-point operations a second of one large matrix product, the best of several."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=DTYPES[precision]) for _ in range(2))
    best = min(seconds(lambda: a @ b, device) for _ in range(repeats))
    return 2 * size**3 / best
