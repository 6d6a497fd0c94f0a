"""Random augmentation of training images; the recipes of VTAB-1K use none.

The transforms are torchvision's, and run on the device that holds the images. torchvision draws
from torch's global generators. So these are seeded for each image by a key of (seed, step, position
in the batch), and those of the CPU and of the images' CUDA device are restored afterwards: an
image's augmentation depends on its key alone, like every other draw (`idat_zoo.randomness`).

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
    images: UInt8[Tensor, "B C H W"],
    kinds: Sequence[Augmentation],
    *,
    seed: int,
    step: int,
    first: int = 0,
) -> UInt8[Tensor, "B C H W"]:
    """Augment each image independently, in the order crop, flip, RandAugment.

    `crop` cuts out a random 8 to 100 % of the area and resizes it to the full size (Inception's
    crop, with timm's ranges); `flip` mirrors horizontally with probability 1/2; `randaugment` is
    RandAugment, arXiv:1909.13719, with two operations of magnitude 9. `first` is the position of
    the first image in its batch. On one device, equal images, seed, step and positions give an
    equal output.
    """
    transform = _transform(tuple(kinds), images.shape[-1])
    source = generator(seed, "pair", "augment", step)
    seeds = torch.randint(2**62, (first + len(images),), generator=source)[first:]
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
