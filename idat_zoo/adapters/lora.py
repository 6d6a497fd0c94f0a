"""LoRA on linear layers: by default q and v, rows of timm's fused qkv or layers of their own.

Where blocks have no attention (ConvNeXt), the default is the two layers of their MLP.

Hu et al., arXiv:2106.09685: a layer's output y becomes y + s B A x. A is Kaiming-uniform
(a = sqrt 5), B is zero, so training starts from the frozen network. Dropout acts on x, with one
mask for q, k and v, as in the authors' code. Ours differs in `scale`: s is the scale itself, unless
`scaling` divides it by the rank ("alpha", as the authors do) or by its root (rsLoRA,
arXiv:2312.03732). `key` also updates k, beside any `parts`.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.layers import Layer, UpdatesAdapter
from idat_zoo.adapters.masks import Mask
from idat_zoo.adapters.sites import Site, SiteShape
from idat_zoo.adapters.tensors import Tensors, kaiming_uniform
from idat_zoo.option_words import UNWRITTEN, OnLayers


class LoRAOptions(OnLayers):
    """Options of LoRA."""

    rank: int = Field(default=8, ge=1, description="rank R of each update")
    scale: float = Field(default=1.0, gt=0, description="factor on B A")
    scaling: Literal["none", "alpha", "rslora"] = Field(
        default="none",
        description="divide the scale by nothing, by R or by its root",
        json_schema_extra=UNWRITTEN,
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="drop rate on the input")
    key: bool = Field(default=False, description="also update the key", json_schema_extra=UNWRITTEN)


class LoRA(UpdatesAdapter):
    """Low-rank updates of linear layers, by default each block's q and v."""

    name = "lora"
    title = "LoRA"
    paper = "arXiv:2106.09685"
    year = 2021
    Options = LoRAOptions
    stacks_over = frozenset({"rank", "scale", "scaling", "dropout", "key", "parts"})
    options: LoRAOptions

    @property
    def parts(self) -> tuple[str, ...]:
        """With `key`, the key among them."""
        own = super().parts
        if not self.options.key or {"key", "qkv"} & set(own):
            return own
        return ("query", "key", *own[1:]) if own[0] == "query" else ("key", *own)

    @property
    def constants(self) -> dict[str, float]:
        """The factor on B A."""
        divisors = {"none": 1.0, "alpha": self.options.rank, "rslora": math.sqrt(self.options.rank)}
        return {"scale": self.options.scale / divisors[self.options.scaling]}

    def start(self, layer: Layer, generator: torch.Generator) -> dict[str, Tensor]:
        """R (inputs + outputs) numbers: A Kaiming-uniform, B zero; 4 L D R in all by default."""
        down = kaiming_uniform(self.options.rank, layer.inputs, generator=generator)
        return {"down.weight": down, "up.weight": torch.zeros(layer.outputs, self.options.rank)}

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """Dropout on the input of all updates."""
        inputs = (shape.tokens, shape.inputs)
        return {"dropout": Mask(shape=inputs, rate=self.options.dropout)}

    def factors(self, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """s B and A."""
        return tensors["scale"] * tensors["up.weight"], tensors["down.weight"]

    def update(self, tensors: Tensors, x: Tensor, masks: Tensors) -> Tensor:
        """s B A x."""
        up, down = self.factors(tensors)
        return F.linear(F.linear(x, down), up)
