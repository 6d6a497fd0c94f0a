"""(IA)3: vectors that scale what k and v give, and what enters an MLP's second layer.

arXiv:2205.05638, as PEFT 0.21.2 has it: k and v become l * k and l * v, and fc2 reads l * x, where
x comes from the activation. All vectors start at 1, so the network starts as the frozen one. A
block has 2 D + H numbers, H the width inside its MLP: 6 L D in a plain ViT.

They fold into what they stand at: diag(l) W and l b of k and v, W diag(l) of fc2. Ours differs from
PEFT's on timm's fused qkv, where PEFT can scale only all rows of q, k and v as one: that is
`parts=qkv+fc2`. Any other of `parts` (q, proj, fc1) is scaled behind the layer. A block without
attention has the vector of its fc2 alone. There is no dropout in it.
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
        """Ones: as many as fc2 has inputs, and any other layer outputs."""
        if layer.name == "fc2":
            return {"input_scale": torch.ones(layer.inputs)}
        return {"scale": torch.ones(layer.outputs)}

    def change(
        self, tensors: Tensors, x: Tensor, y: Tensor, frozen: Tensors, masks: Tensors
    ) -> Tensor:
        """l * y; of fc2, W (l * x) + b."""
        if "scale" in tensors:
            return tensors["scale"] * y
        return y + F.linear(x * (tensors["input_scale"] - 1), frozen["weight"])
