"""The tensors of an adapter: how they are named, and the distributions of their initial values."""

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
    """The new tensors of an adapter: `blocks.{i}.NAME` belong to block i, `shared.NAME` to all.

    `embed.NAME` belong to the patch embedding, `pool.NAME` to what follows the last block.
    `body.NAME` replace the backbone's own parameter NAME.
    """

    trainable: dict[str, Tensor]
    frozen: dict[str, Tensor] = field(default_factory=dict)


def home_of(block: int, depth: int) -> str:
    """The prefix of the names of a block's tensors; -1 and the depth are the two ends."""
    return {EMBED: "embed.", depth: "pool."}.get(block, f"blocks.{block}.")


def trunc_normal(*shape: int, std: float, generator: torch.Generator, cut: float = 2.0) -> Tensor:
    """Normal values cut at ±`cut`: timm's `trunc_normal_`. For a small std this is plain normal."""
    values = torch.empty(shape)
    return torch.nn.init.trunc_normal_(values, std=std, a=-cut, b=cut, generator=generator)


def kaiming_uniform(outputs: int, inputs: int, *, generator: torch.Generator) -> Tensor:
    """A weight as PyTorch initialises a linear layer: uniform within 1 / sqrt(inputs)."""
    weight = torch.empty(outputs, inputs)
    return torch.nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
