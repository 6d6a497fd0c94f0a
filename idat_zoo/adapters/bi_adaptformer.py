"""Bi-AdaptFormer: AdaptFormer with both weights quantised to a few bits.

Jie et al., arXiv:2307.16867, code JieShibo/PETL-ViT 026e4f1 (MIT). With x the stream after
attention, not normalised, the block's output becomes

    x + mlp(norm2(x)) + s Q(up) drop(relu(Q(down) x))

without biases, outside drop path, with R = 32 and a dropout of 0.1; Q gives each number of a weight
one of 2^bits values (`quantised.py`). `down` starts uniform within 1 / sqrt(D), `up` normal of std
0.001 cut at 0.002, or at 0 with 32 bits: with fewer bits the network does not start as the frozen
one. It trains 2 L D R parameters, which the authors store at `bits` bits each.

The authors choose s for each task, from 0.01 to 100; our default is 1. Ours trains and saves whole
weights, and has the head of all families, where theirs may have one of 1 bit.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.bottleneck import BottleneckAdapter, BottleneckOptions, bottleneck
from idat_zoo.adapters.quantised import Bits, code_table, quantised, small_start
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Created, Tensors, kaiming_uniform


class BiAdaptFormerOptions(BottleneckOptions):
    """Options of Bi-AdaptFormer."""

    bottleneck: int = Field(default=32, ge=1, description="inner width R")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="drop rate on the bottleneck")
    bits: Bits = Field(default=1, description="bits of a weight; 32: whole")


class BiAdaptFormer(BottleneckAdapter):
    """AdaptFormer with weights of few bits, by default of one."""

    name = "bi_adaptformer"
    title = "Bi-AdaptFormer"
    paper = "arXiv:2307.16867"
    year = 2023
    tokenwise = True
    Options = BiAdaptFormerOptions
    stacks_over = frozenset({"scale", "dropout"})  # padding would change mean and deviation
    sites: ClassVar = frozenset({Site.AFTER_MLP})
    options: BiAdaptFormerOptions

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """The weights, and the table of their levels."""
        table = {f"shared.{name}": t for name, t in code_table(self.options.bits).items()}
        return Created(trainable=super().create(anatomy, generator).trainable, frozen=table)

    def start(self, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """A linear layer down, as PyTorch initialises it, and values near zero up."""
        inner, bits = self.options.bottleneck, self.options.bits
        return {
            "down.weight": kaiming_uniform(inner, width, generator=generator),
            "up.weight": small_start(width, inner, bits=bits, generator=generator),
        }

    def added(
        self, tensors: Tensors, x: Tensor, y: Tensor, masks: Tensors, block: BlockAnatomy
    ) -> Tensor:
        """The quantised bottleneck of the stream before the MLP."""
        own = {n: quantised(tensors[n], tensors) for n in ("down.weight", "up.weight")}
        return tensors["scale"] * bottleneck(own, x, masks, act=F.relu)
