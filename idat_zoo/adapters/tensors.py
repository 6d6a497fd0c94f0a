"""The tensors of an adapter: their names, and the values that they start from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from idat_zoo.adapters.sites import EMBED

Tensors = Mapping[str, Tensor]
Carry = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Created:
    """An adapter's tensors: `blocks.{i}.NAME` belong to block i, `shared.NAME` to all.

    `embed.NAME` belong to the patch embedding, `pool.NAME` to what follows the last block.
    `body.NAME` take the place of the backbone's own parameter NAME.
    """

    trainable: dict[str, Tensor]
    frozen: dict[str, Tensor] = field(default_factory=dict)


def home_of(block: int, depth: int) -> str:
    """What the names of a block's tensors begin with; -1 and the depth are the two ends."""
    return {EMBED: "embed.", depth: "pool."}.get(block, f"blocks.{block}.")


def trunc_normal(*shape: int, std: float, generator: torch.Generator, cut: float = 2.0) -> Tensor:
    """Normal values cut at ±`cut`. At 2, timm's `trunc_normal_`: for small std plain normal."""
    values = torch.empty(shape)
    return torch.nn.init.trunc_normal_(values, std=std, a=-cut, b=cut, generator=generator)


def kaiming_uniform(outputs: int, inputs: int, *, generator: torch.Generator) -> Tensor:
    """A weight as PyTorch starts a linear layer's: uniform up to 1 / sqrt(inputs)."""
    weight = torch.empty(outputs, inputs)
    return torch.nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
