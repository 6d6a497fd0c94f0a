"""Bottlenecks with a drop path of their own, which drops them for whole images.

They are those of visinf/adapter_plus 191c4ab (Apache-2.0): Adapter+, Houlsby and Pfeiffer.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.bottleneck import (
    BottleneckAdapter,
    BottleneckOptions,
    bottleneck,
    own_norm,
    with_biases,
)
from idat_zoo.adapters.masks import Mask, masked
from idat_zoo.adapters.sites import Site, SiteShape
from idat_zoo.adapters.tensors import Tensors, kaiming_uniform, trunc_normal

EPS = 1e-6


class DroppedOptions(BottleneckOptions):
    """Options of a bottleneck with a drop path of its own."""

    drop_path: float = Field(
        default=0.1, ge=0, lt=1, description="drop rate of an image's adapter, in every block"
    )


class DroppedBottleneck(BottleneckAdapter):
    """A family of bottlenecks, each dropped by a draw of its own."""

    stacks_over = BottleneckAdapter.stacks_over | {"drop_path"}
    tokenwise = True
    options: DroppedOptions

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """Dropout on the bottleneck, and a drop path with one draw per image."""
        own = super().masks(site, shape)
        drop_path = Mask(shape=(1, 1), rate=self.options.drop_path)
        return {**own, "drop_path": drop_path} if own else {}


def dropped(
    tensors: Tensors, x: Tensor, masks: Tensors, *, act: Callable[[Tensor], Tensor] = F.gelu
) -> Tensor:
    """alpha * drop_path(up(act(down(x)))), with x normalised first where there is a norm."""
    if "norm.weight" in tensors:
        x = own_norm(tensors, x, eps=EPS)
    return tensors["scale"] * masked(bottleneck(tensors, x, masks, act=act), masks, "drop_path")


def houlsby_start(width: int, inner: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Both weights normal of std 0.01 cut at 0.02, biases 0."""
    down = trunc_normal(inner, width, std=0.01, cut=0.02, generator=generator)
    return with_biases(down, trunc_normal(width, inner, std=0.01, cut=0.02, generator=generator))


def bert_start(width: int, inner: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Both weights normal of std 0.02, biases 0."""
    down = torch.empty(inner, width).normal_(std=0.02, generator=generator)
    return with_biases(down, torch.empty(width, inner).normal_(std=0.02, generator=generator))


def lora_start(width: int, inner: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A linear layer down, initialised as PyTorch does with its bias, and zeros up."""
    down = kaiming_uniform(inner, width, generator=generator)
    bound = 1 / math.sqrt(width)
    bias = torch.empty(inner).uniform_(-bound, bound, generator=generator)
    return with_biases(down, torch.zeros(width, inner)) | {"down.bias": bias}
