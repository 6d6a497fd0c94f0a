"""OFT on linear layers, by default q and v: their inputs are turned, block by block.

Qiu et al., arXiv:2306.07280: W becomes W R^T, with R of blocks of b by b along its diagonal, each
near to a rotation: R = I + 2 Q + 2 Q^2 + 2 Q^3 + Q^4 of a skew-symmetric Q. Trained are the entries
above Q's diagonal, all zero at first, so training starts from the frozen network. A layer has
inputs (b - 1) / 2 numbers: L D (b - 1) in all by default.

Source: PEFT 0.21.2, `tuners/oft`. R is the start of the series of (I + Q) (I - Q)^-1, and no exact
rotation. With `exact` it is one: (I - Q) (I + Q)^-1, as in PEFT the other way round. With `share`
all blocks of a layer have one Q. PEFT's constraint of Q's length after each step (COFT), its scaled
series of other lengths and its dropout of blocks, all off by default, are not taken over.
"""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.layers import Layer, LayersAdapter
from idat_zoo.adapters.tensors import Tensors
from idat_zoo.option_words import OnLayers


class OFTOptions(OnLayers):
    """Options of OFT."""

    block_size: int = Field(default=32, ge=2, le=1024, description="side b of a block of R")
    exact: bool = Field(default=False, description="R is exactly a rotation")
    share: bool = Field(default=False, description="one block for all of a layer")


class OFT(LayersAdapter):
    """Linear layers, by default q and v, whose input is turned in blocks of its channels."""

    name = "oft"
    title = "OFT"
    paper = "arXiv:2306.07280"
    year = 2023
    Options = OFTOptions
    stacks_over = frozenset({"parts"})
    options: OFTOptions

    def misfit(self, anatomy: Anatomy) -> str:
        """Names a layer whose inputs the blocks do not divide."""
        missing = super().misfit(anatomy)
        if missing:
            return missing
        size = self.options.block_size
        for layer in self.layers(anatomy):
            if layer.inputs % size:
                inputs = f"its {layer.name} has {layer.inputs} inputs"
                return f"{inputs}, and block_size={size} does not divide that"
        return ""

    def start(self, layer: Layer, generator: torch.Generator) -> dict[str, Tensor]:
        """Zeros."""
        size = self.options.block_size
        blocks = 1 if self.options.share else layer.inputs // size
        return {"skew": torch.zeros(blocks, size * (size - 1) // 2)}

    def change(
        self, tensors: Tensors, x: Tensor, y: Tensor, frozen: Tensors, masks: Tensors
    ) -> Tensor:
        """y + W (R - I)^T x: near the identity, this loses less to rounding than W R^T x."""
        skew, size = skew_symmetric(tensors["skew"], self.options.block_size), x.shape[-1]
        if self.options.exact:
            eye = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
            turn = torch.linalg.solve(eye + skew, -2 * skew, left=False)
        else:
            square = skew @ skew
            turn = 2 * (skew + square + square @ skew) + square @ square
        blocks = x.unflatten(-1, (size // skew.shape[-1], skew.shape[-1]))
        turned = torch.einsum("...rk,rkc->...rc", blocks, turn.expand(blocks.shape[-2], -1, -1))
        return y + F.linear(turned.flatten(-2), frozen["weight"])


def skew_symmetric(above: Tensor, size: int) -> Tensor:
    """`[.., size (size - 1) / 2] -> [.., size, size]`, from the entries above the diagonal."""
    row = torch.arange(size, device=above.device)[:, None]
    column = row.mT
    place = row * (2 * size - row - 1) // 2 + column - row - 1
    upper = F.pad(above, (0, 1))[..., torch.where(row < column, place, above.shape[-1])]
    return upper - upper.mT
