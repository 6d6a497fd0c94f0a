"""Convpass: beside attention and beside the MLP, a bottleneck with a 3 by 3 convolution inside.

Jie and Deng, arXiv:2207.07039, code JieShibo/PETL-ViT 026e4f1 (MIT). With u a branch's normalised
input, each branch's sum becomes

    x + branch(u) + s drop_path(up(drop(q(conv(q(down(u)))))))

where q(x) = x sigmoid(1.702 x), R = 8 and the dropout is 0.1. The convolution sees the patches on
their grid, zeros around it; the tokens before the grid meet its centre alone, as images of one
pixel. Its drop path has its block's rate and draws of its own: it is dropped for other images than
the branch. `down` starts Xavier-uniform, the convolution as the identity (`start=xavier`: uniform,
as the authors have it for about half of their tasks), `up` and biases at 0: training starts from
the frozen network. 2 L (2 D R + 9 R^2 + 2 R + D) numbers, half with `branches=attn`.

The authors choose s for each task, from 0.01 to 100; ours is 1 unless it is set. Their identity is
for R = 8 alone, ours for any R.
"""

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import BlockAnatomy
from idat_zoo.adapters.bottleneck import BottleneckAdapter, BottleneckOptions, with_biases
from idat_zoo.adapters.masks import Mask, masked
from idat_zoo.adapters.on_grid import on_grid
from idat_zoo.adapters.sites import Site, SiteShape
from idat_zoo.adapters.tensors import Carry, Tensors

ENTERED = frozenset({Site.ATTN, Site.MLP})
"""Where a branch's input is seen; its bottleneck acts where the branch has joined the stream."""


class ConvpassOptions(BottleneckOptions):
    """Options of Convpass."""

    dropout: float = Field(default=0.1, ge=0, lt=1, description="drop rate on the bottleneck")
    branches: Literal["both", "attn"] = Field(
        default="both", description="beside attention and MLP, or beside attention alone"
    )
    start: Literal["identity", "xavier"] = Field(
        default="identity", description="how the convolution starts"
    )


class Convpass(BottleneckAdapter):
    """A bottleneck with a 3 by 3 convolution beside attention and beside the MLP."""

    name = "convpass"
    title = "Convpass"
    paper = "arXiv:2207.07039"
    year = 2022
    Options = ConvpassOptions
    in_branches: ClassVar = True
    options: ConvpassOptions

    @property
    def sites(self) -> frozenset[Site]:
        """For each branch, its input and the stream after it."""
        attention = frozenset({Site.ATTN, Site.AFTER_ATTN})
        both = attention | {Site.MLP, Site.AFTER_MLP}
        return both if self.options.branches == "both" else attention

    def start(self, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Xavier-uniform down, zeros up, and the convolution as its option says."""
        inner = self.options.bottleneck
        down = torch.nn.init.xavier_uniform_(torch.empty(inner, width), generator=generator)
        kernel = torch.zeros(inner, inner, 3, 3)
        if self.options.start == "xavier":
            torch.nn.init.xavier_uniform_(kernel, generator=generator)
        else:
            kernel[:, :, 1, 1] = torch.eye(inner)
        convolution = {"conv.weight": kernel, "conv.bias": torch.zeros(inner)}
        return with_biases(down, torch.zeros(width, inner)) | convolution

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """Dropout on the bottleneck, and a drop path with the block's rate."""
        if site in ENTERED:
            return {}
        return {**super().masks(site, shape), "drop_path": Mask(shape=(1, 1), with_drop_path=True)}

    def apply_carrying(
        self, site: Site, tensors: Tensors, x: Tensor, y: Tensor, carry: Carry, **more: Any
    ) -> tuple[Tensor, Carry]:
        """Carry a branch's input to the site where the branch has joined the stream."""
        if site in ENTERED:
            return y, {"input": x}
        return self.apply(site, tensors, carry["input"], y, **more), {}

    def added(
        self, tensors: Tensors, x: Tensor, y: Tensor, masks: Tensors, block: BlockAnatomy
    ) -> Tensor:
        """The convolutional bottleneck of the branch's normalised input."""
        hidden = quick_gelu(F.linear(x, tensors["down.weight"], tensors["down.bias"]))
        hidden = quick_gelu(convolved(hidden, tensors["conv.weight"], tensors["conv.bias"], block))
        hidden = masked(hidden, masks, "dropout")
        out = F.linear(hidden, tensors["up.weight"], tensors["up.bias"])
        return tensors["scale"] * masked(out, masks, "drop_path")


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)


def convolved(
    x: Float[Tensor, "B N R"], kernel: Tensor, bias: Tensor, block: BlockAnatomy
) -> Float[Tensor, "B N R"]:
    """Convolve the patches on their grid, and each prefix token as an image of one pixel."""
    return on_grid(
        x,
        block,
        lambda image: F.conv2d(image, kernel, bias, padding=1),
        lambda alone: F.linear(alone, kernel[:, :, 1, 1], bias),
    )
