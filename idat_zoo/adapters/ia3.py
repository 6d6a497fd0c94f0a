"""(IA)3: learned vectors that scale keys, values and the input of an MLP's second layer.

arXiv:2205.05638, as implemented in PEFT 0.21.2: k and v become l * k and l * v, and fc2 reads l *
x, where x is the activation's output. All vectors start at 1, so the network starts as the frozen
one. A block has 2 D + H parameters, H the hidden width of its MLP: 6 L D in a plain ViT.

They fold into the layers: diag(l) W and l b for k and v, W diag(l) for fc2. Ours differs from
PEFT's on timm's fused qkv, where PEFT can only scale all rows of q, k and v together: that is
`parts=qkv+fc2`. Other `parts` (q, proj, fc1) are scaled at their outputs. A block without attention
has the vector of its fc2 alone. There is no dropout.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.layers import Layer, LayersAdapter
from idat_zoo.adapters.tensors import Tensors
from idat_zoo.option_words import InBlocks, Parts


class IA3Options(InBlocks):
    """Options of (IA)3."""

    parts: Parts = Field(
        default="k+v+fc2",
        description="layers: some of q, k, v, proj, fc1, fc2, or qkv as one",
        json_schema_extra={"form": "parts"},
    )


class IA3(LayersAdapter):
    """Scales of keys, values and an MLP's hidden features."""

    name = "ia3"
    title = "(IA)3"
    paper = "arXiv:2205.05638"
    year = 2022
    Options: ClassVar = IA3Options
    options: IA3Options

    def start(self, layer: Layer, generator: torch.Generator) -> dict[str, Tensor]:
        """Ones: one per input for fc2, one per output for any other layer."""
        if layer.name == "fc2":
            return {"input_scale": torch.ones(layer.inputs)}
        return {"scale": torch.ones(layer.outputs)}

    def change(
        self, tensors: Tensors, x: Tensor, y: Tensor, frozen: Tensors, masks: Tensors
    ) -> Tensor:
        """l * y; for fc2, W (l * x) + b."""
        if "scale" in tensors:
            return tensors["scale"] * y
        return y + F.linear(x * (tensors["input_scale"] - 1), frozen["weight"])
