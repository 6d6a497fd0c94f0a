"""AdaptFormer as its authors wrote it: a bottleneck beside each block's MLP.

Chen et al., arXiv:2205.13535, code ShoufaChen/AdaptFormer 6967d67 (MIT). With x the stream after
attention, not normalised, the block's output becomes

    x + mlp(norm2(x)) + s up(drop(relu(down(x))))

with biases, R = 64, s = 0.1 and a dropout of 0.1, outside drop path. `down` is initialised as
PyTorch does a linear layer, uniform within 1 / sqrt(D), its bias at 0; `up` starts at 0, so
training starts from the frozen network. It trains L (2 D R + R + D) parameters.

Options follow the authors' code: `position=sequential` adds s up(...)(u) after the MLP, with u what
the MLP adds to the stream; `norm` puts a layer norm (eps 1e-5) on the input (`in`) or on the value
that is added (`out`); `learned_scale` trains s, which starts at `scale` (the authors': at 1).

Ours leaves out the authors' BatchNorm without weights before the head. With it, an image's logits
would depend on the other images of its batch, and in a stack on those of other tasks, and its
statistics would have to be published with the adapter. Their golden numbers for it are not
compared.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import BlockAnatomy
from idat_zoo.adapters.bottleneck import (
    BottleneckAdapter,
    BottleneckOptions,
    bottleneck,
    fresh_norm,
    own_norm,
    with_biases,
)
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Tensors, kaiming_uniform

EPS = 1e-5


class AdaptFormerOptions(BottleneckOptions):
    """Options of AdaptFormer."""

    bottleneck: int = Field(default=64, ge=1, description="inner width R")
    scale: float = Field(default=0.1, gt=0, description="factor on the adapter's output")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="drop rate on the bottleneck")
    position: Literal["parallel", "sequential"] = Field(
        default="parallel", description="beside the MLP, or after it"
    )
    norm: Literal["none", "in", "out"] = Field(
        default="none", description="a layer norm on the input, or on what is added"
    )
    learned_scale: bool = Field(default=False, description="train the scale, from its value on")


class AdaptFormer(BottleneckAdapter):
    """A bottleneck beside each MLP, as AdaptFormer's authors wrote it."""

    name = "adaptformer"
    title = "AdaptFormer"
    paper = "arXiv:2205.13535"
    year = 2022
    tokenwise = True
    Options = AdaptFormerOptions
    sites: ClassVar = frozenset({Site.AFTER_MLP})
    options: AdaptFormerOptions

    @property
    def constants(self) -> dict[str, float]:
        """The scale, where it is not trained."""
        return {} if self.options.learned_scale else super().constants

    def start(self, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """A linear layer down, as PyTorch initialises it, and zeros up."""
        inner = self.options.bottleneck
        down = kaiming_uniform(inner, width, generator=generator)
        tensors = with_biases(down, torch.zeros(width, inner))
        if self.options.norm != "none":
            tensors |= fresh_norm(width)
        if self.options.learned_scale:
            tensors["scale"] = torch.full((1,), self.options.scale)
        return tensors

    def added(
        self, tensors: Tensors, x: Tensor, y: Tensor, masks: Tensors, block: BlockAnatomy
    ) -> Tensor:
        """The bottleneck of the stream before the MLP, or of what the MLP added to it."""
        u = x if self.options.position == "parallel" else y - x
        if self.options.norm == "in":
            u = own_norm(tensors, u, eps=EPS)
        out = tensors["scale"] * bottleneck(tensors, u, masks, act=F.relu)
        return own_norm(tensors, out, eps=EPS) if self.options.norm == "out" else out
