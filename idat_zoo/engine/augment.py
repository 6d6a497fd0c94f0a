"""Random changes of training images, for suites that use them; VTAB-1K's recipes use none.

The transforms are torchvision's, on the device that holds the images. torchvision draws from
torch's global generators, so each image's draws are made under a generator that is keyed by (seed,
step, place in the batch) and put back afterwards: they are counted like every other draw.

Shape letters: B batch, C channels, H W image.
"""

from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from idat_zoo.randomness import generator
from idat_zoo.recipe import Augmentation


def augment(
    images: UInt8[Tensor, "B C H W"], kinds: Sequence[Augmentation], *, seed: int, step: int
) -> UInt8[Tensor, "B C H W"]:
    """Each image changed for itself, in the order crop, flip, RandAugment.

    `crop` is a random part of 8 to 100 % of the area, resized back (Inception's, as timm has it);
    `flip` is horizontal, one in two; `randaugment` is arXiv:1909.13719 with two operations of
    magnitude 9. Equal for equal images, seed and step, on one device.
    """
    transform = _transform(tuple(kinds), images.shape[-1])
    seeds = torch.randint(2**62, (len(images),), generator=generator(seed, "pair", "augment", step))
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        changed = []
        for image, own_seed in zip(images, seeds.tolist(), strict=True):
            torch.manual_seed(own_seed)
            changed.append(transform(image))
    return torch.stack(changed)


def _transform(kinds: Sequence[Augmentation], size: int) -> v2.Transform:
    steps: list[v2.Transform] = []
    if "crop" in kinds:
        bicubic = InterpolationMode.BICUBIC
        steps.append(v2.RandomResizedCrop(size, interpolation=bicubic, antialias=True))
    if "flip" in kinds:
        steps.append(v2.RandomHorizontalFlip())
    if "randaugment" in kinds:
        steps.append(v2.RandAugment())
    return v2.Compose(steps)
