"""Bottlenecks: the part that families share which add up(f(down(x))) to a block's stream.

The tensors are `down.weight` [R, D] and `up.weight` [D, R], with biases where the family has them.

Shape letters: B batch, N tokens, D width, R bottleneck.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.blocks import BRANCHES, BlocksAdapter
from idat_zoo.adapters.masks import Mask, masked
from idat_zoo.adapters.sites import Site, SiteShape
from idat_zoo.adapters.tensors import Tensors
from idat_zoo.option_words import InBlocks


class BottleneckOptions(InBlocks):
    """Options of a bottleneck."""

    bottleneck: int = Field(default=8, ge=1, description="inner width R")
    scale: float = Field(default=1.0, gt=0, description="factor on the adapter's output")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="drop rate on the bottleneck")


class BottleneckAdapter(BlocksAdapter):
    """A family with one bottleneck per block, or one per branch."""

    stacks_over: ClassVar = frozenset({"bottleneck", "scale", "dropout"})
    options: BottleneckOptions

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """Dropout on the bottleneck."""
        if site not in BRANCHES:
            return {}
        inner = (shape.tokens, self.options.bottleneck)
        return {"dropout": Mask(shape=inner, rate=self.options.dropout)}


def bottleneck(
    tensors: Tensors,
    x: Float[Tensor, "B N D"],
    masks: Tensors,
    *,
    act: Callable[[Tensor], Tensor],
) -> Float[Tensor, "B N D"]:
    """up(drop(act(down(x))))."""
    hidden = act(F.linear(x, tensors["down.weight"], tensors.get("down.bias")))
    hidden = masked(hidden, masks, "dropout")
    return F.linear(hidden, tensors["up.weight"], tensors.get("up.bias"))


def with_biases(down: Tensor, up: Tensor) -> dict[str, Tensor]:
    """The tensors of a bottleneck with these two weights and zero biases."""
    return {
        "down.weight": down,
        "down.bias": torch.zeros(len(down)),
        "up.weight": up,
        "up.bias": torch.zeros(len(up)),
    }


def own_norm(tensors: Tensors, x: Tensor, *, eps: float) -> Tensor:
    """x after the adapter's own layer norm."""
    return F.layer_norm(x, x.shape[-1:], tensors["norm.weight"], tensors["norm.bias"], eps)


def fresh_norm(width: int) -> dict[str, Tensor]:
    """The tensors of a layer norm, as PyTorch initialises it."""
    return {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
