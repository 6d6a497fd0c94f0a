"""LoHa on linear layers, by default q and v: a product, entry by entry, of two low-rank matrices.

Hyeon-Woo et al., FedPara, arXiv:2108.06098; as an adapter in LyCORIS, arXiv:2309.14859: W becomes
W + s (B1 A1) * (B2 A2), of rank R^2 at most. A2 is zero, all else Kaiming-uniform (a = sqrt 5), so
training starts from the frozen network. A layer has 2 R (inputs + outputs) numbers: 8 L D R in all
by default. The update is made as a whole matrix in each step, as the authors do.

Source: PEFT 0.21.2, `tuners/loha`, with its start; the paper's and LyCORIS's is normal. Ours
differs in `scale`, which is s itself, where PEFT divides an alpha by R. PEFT's dropouts of rows and
of whole layers, both 0 by default, are not taken over.
"""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.layers import Layer, UpdatesAdapter
from idat_zoo.adapters.tensors import Tensors, kaiming_uniform
from idat_zoo.option_words import OnLayers


class LoHaOptions(OnLayers):
    """Options of LoHa."""

    rank: int = Field(default=8, ge=1, le=65536, description="rank R of each of the two")
    scale: float = Field(default=1.0, gt=0, description="factor on the product")


class LoHa(UpdatesAdapter):
    """Products, entry by entry, of low-rank matrices added to linear layers, by default q and v."""

    name = "loha"
    title = "LoHa"
    paper = "arXiv:2309.14859"
    year = 2023
    Options = LoHaOptions
    stacks_over = frozenset({"rank", "scale", "parts"})
    options: LoHaOptions

    @property
    def constants(self) -> dict[str, float]:
        """The factor on the product."""
        return {"scale": self.options.scale}

    def start(self, layer: Layer, generator: torch.Generator) -> dict[str, Tensor]:
        """A2 zero, the others Kaiming-uniform."""
        rank = self.options.rank
        shapes = {
            "up1": (layer.outputs, rank),
            "down1": (rank, layer.inputs),
            "up2": (layer.outputs, rank),
        }
        drawn = {n: kaiming_uniform(*shape, generator=generator) for n, shape in shapes.items()}
        return {**drawn, "down2": torch.zeros(rank, layer.inputs)}

    def update(self, tensors: Tensors, x: Tensor, masks: Tensors) -> Tensor:
        """s (B1 A1) * (B2 A2) x."""
        first, second = (tensors[f"up{i}"] @ tensors[f"down{i}"] for i in (1, 2))
        return F.linear(x, tensors["scale"] * first * second)
