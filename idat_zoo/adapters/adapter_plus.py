"""Adapter+: a bottleneck after each block, with a learned scale for each channel of its output.

Steitz and Roth, arXiv:2406.06820, code visinf/adapter_plus 191c4ab (Apache-2.0). By default, with x
the block's output,

    x + alpha * drop_path(up(gelu(down(x))))

with biases, R = 8, and a drop path of the adapter's own: 0.1 in every block, block 0 too, one draw
per image, before alpha, so a dropped image loses the upper bias, too. The weights start normal of
std 0.01 cut at twice that (std 0.0088), biases at 0, alpha [D] at 1: the network does not start as
the frozen one. It trains L (2 D R + R + 2 D) parameters.

Options follow the authors' code. `position` is `pre` (after attention, x its stream), `parallel`
(x the stream before the MLP) or `intermediate` (x what the MLP adds to the stream, after the
backbone's drop path, so a dropped branch feeds zeros). `scaling` makes alpha one number, or fixed.
`norm` adds a layer norm of x; `bias` and `activation` may be left out. `start=lora` initialises
`down` and its bias uniformly within 1 / sqrt(D) and `up` at 0, `start=bert` weights normal of std
0.02. Alpha is, or starts at, `scale`. Dropout on the bottleneck is off, as theirs.

Ours computes what the MLP adds as the difference of two streams. As in their code, biases and alpha
are not decayed.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import BlockAnatomy
from idat_zoo.adapters.bottleneck import fresh_norm
from idat_zoo.adapters.dropped import (
    DroppedBottleneck,
    DroppedOptions,
    bert_start,
    dropped,
    houlsby_start,
    lora_start,
)
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Tensors

STARTS = {"houlsby": houlsby_start, "bert": bert_start, "lora": lora_start}


class AdapterPlusOptions(DroppedOptions):
    """Options of Adapter+."""

    position: Literal["post", "pre", "parallel", "intermediate"] = Field(
        default="post", description="behind the block, before the MLP, beside or on it"
    )
    scaling: Literal["channel", "scalar", "fixed"] = Field(
        default="channel", description="what scale is: one a channel, one number, or not trained"
    )
    start: Literal["houlsby", "bert", "lora"] = Field(
        default="houlsby", description="how it starts: near zero, at 0.02, or at the frozen network"
    )
    activation: Literal["gelu", "none"] = Field(default="gelu", description="between the two")
    bias: bool = Field(default=True, description="biases in both linear layers")
    norm: bool = Field(default=False, description="a layer norm before them")


class AdapterPlus(DroppedBottleneck):
    """A bottleneck behind each block, with a learned scale of each channel."""

    name = "adapter_plus"
    title = "Adapter+"
    paper = "arXiv:2406.06820"
    year = 2024
    Options = AdapterPlusOptions
    options: AdapterPlusOptions

    @property
    def sites(self) -> frozenset[Site]:
        """After attention, or after the MLP."""
        pre = self.options.position == "pre"
        return frozenset({Site.AFTER_ATTN if pre else Site.AFTER_MLP})

    @property
    def constants(self) -> dict[str, float]:
        """The scale, where it is not trained."""
        return super().constants if self.options.scaling == "fixed" else {}

    def start(self, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The initial values that its option names."""
        options = self.options
        tensors = STARTS[options.start](width, options.bottleneck, generator)
        if not options.bias:
            tensors = {name: t for name, t in tensors.items() if not name.endswith("bias")}
        if options.scaling != "fixed":
            size = width if options.scaling == "channel" else 1
            tensors["scale"] = torch.full((size,), options.scale)
        return tensors | (fresh_norm(width) if options.norm else {})

    def added(
        self, tensors: Tensors, x: Tensor, y: Tensor, masks: Tensors, block: BlockAnatomy
    ) -> Tensor:
        """The scaled bottleneck of the tensor that `position` names."""
        position = self.options.position
        u = x if position == "parallel" else y - x if position == "intermediate" else y
        act = F.gelu if self.options.activation == "gelu" else torch.nn.Identity()
        return dropped(tensors, u, masks, act=act)
