"""The grid of an image's patches, for families that convolve."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from idat_zoo.adapters.anatomy import BlockAnatomy


def on_grid(
    x: Float[Tensor, "B N D"],
    block: BlockAnatomy,
    convolve: Callable[[Tensor], Tensor],
    alone: Callable[[Tensor], Tensor] = lambda tokens: tokens,
) -> Float[Tensor, "B N D"]:
    """Apply `convolve` to the patches [B, D, rows, columns], and `alone` to the prefix tokens."""
    before, patches = x.tensor_split([block.prefix], dim=1)
    image = convolve(patches.transpose(1, 2).unflatten(2, block.grid))
    return torch.cat([alone(before), image.flatten(2).transpose(1, 2)], dim=1)


def depthwise(x: Float[Tensor, "B N D"], kernel: Tensor, block: BlockAnatomy) -> Tensor:
    """Convolve the patches per channel with `[D, 1, k, k]`; prefix tokens stay as they are.

    [B, N, D] -> [B, N, D].
    """
    side, groups = kernel.shape[-1] // 2, kernel.shape[0]
    return on_grid(x, block, lambda image: F.conv2d(image, kernel, padding=side, groups=groups))
