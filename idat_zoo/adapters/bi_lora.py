"""Bi-LoRA on linear layers, by default q and v: LoRA with weights quantised to a few bits.

Jie et al., arXiv:2307.16867: W becomes W + s Q(B) Q(A), where Q gives each number of a weight one
of 2^bits values (`quantised.py`). A is Kaiming-uniform (a = sqrt 5), B normal of std 0.001 cut at
0.002, or zero with 32 bits: with fewer bits the network does not start as the frozen one. Dropout
acts on the R hidden values, with a mask for each layer. A layer has R (inputs + outputs)
parameters, 4 L D R in all by default, which the authors store at `bits` bits each.

Source: JieShibo/PETL-ViT 026e4f1 (MIT), `binary_adapter/lora.py`. The authors choose s for each
task, from 0.01 to 100; our default is 1. Ours trains and saves whole weights, and has the head of
all families, where theirs may have one of 1 bit. Beyond the paper, any linear layers may be named.
"""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.layers import Layer, UpdatesAdapter
from idat_zoo.adapters.masks import Mask, masked
from idat_zoo.adapters.quantised import Bits, code_table, quantised, small_start
from idat_zoo.adapters.sites import Site, SiteShape
from idat_zoo.adapters.tensors import Created, Tensors, kaiming_uniform
from idat_zoo.option_words import OnLayers


class BiLoRAOptions(OnLayers):
    """Options of Bi-LoRA."""

    rank: int = Field(default=32, ge=1, le=65536, description="rank R of each update")
    scale: float = Field(default=1.0, gt=0, description="factor on B A")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="drop rate between A and B")
    bits: Bits = Field(default=1, description="bits of a weight; 32: whole")


class BiLoRA(UpdatesAdapter):
    """LoRA with weights of few bits, by default of one, on each block's q and v."""

    name = "bi_lora"
    title = "Bi-LoRA"
    paper = "arXiv:2307.16867"
    year = 2023
    Options = BiLoRAOptions
    stacks_over = frozenset({"scale", "dropout"})  # padding would change mean and deviation
    options: BiLoRAOptions

    @property
    def constants(self) -> dict[str, float]:
        """The factor on B A."""
        return {"scale": self.options.scale}

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """The weights, and the table of their levels."""
        table = {f"shared.{name}": t for name, t in code_table(self.options.bits).items()}
        return Created(trainable=super().create(anatomy, generator).trainable, frozen=table)

    def start(self, layer: Layer, generator: torch.Generator) -> dict[str, Tensor]:
        """A Kaiming-uniform, B near zero."""
        rank, bits = self.options.rank, self.options.bits
        return {
            "down.weight": kaiming_uniform(rank, layer.inputs, generator=generator),
            "up.weight": small_start(layer.outputs, rank, bits=bits, generator=generator),
        }

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """Dropout on the hidden values of each layer."""
        hidden = Mask(shape=(shape.tokens, self.options.rank), rate=self.options.dropout)
        return {f"{part}.dropout": hidden for part in self.parts_at(site)}

    def update(self, tensors: Tensors, x: Tensor, masks: Tensors) -> Tensor:
        """s Q(B) Q(A) x."""
        hidden = F.linear(x, quantised(tensors["down.weight"], tensors))
        up = tensors["scale"] * quantised(tensors["up.weight"], tensors)
        return F.linear(masked(hidden, masks, "dropout"), up)
