"""Compacter: a bottleneck on each branch whose weights are sums of Kronecker products.

Karimi Mahabadi et al., arXiv:2106.04647 (for language models), code rabeehk/compacter e123daa
(MIT). A branch's output u becomes, before drop path (our choice of place, after the authors' T5),

    u + up(gelu(down(u))),    each weight [in, out] the sum over i of A_i kron W_i

with n = 4 terms, A of n by n numbers, W_i of in/n by out/n, and the tanh form of gelu. All layers
of all blocks share one A; each W_i is the product of a column and a row (`rank=1`). The bottleneck
R is D / 32 (`reduction`), rounded up to a multiple of n. A starts normal of std 0.0001, the factors
of W Xavier-uniform with gain sqrt 2, biases at 0, so the network starts close to the frozen one.
These are n^3 + 2 L (2 (D + R) + R + D) parameters; copies of the layer norms, trained by default as
by the authors (`train_norms`), are (4 L + 2) D more. With `form=phm` each layer has its own A,
normal of std 0.01, and whole W_i; `branches=mlp` is Compacter++.
"""

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.blocks import BlocksAdapter
from idat_zoo.adapters.copies import NORMS
from idat_zoo.adapters.kronecker import kron_linear
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Created, Tensors
from idat_zoo.option_words import InBlocks


class CompacterOptions(InBlocks):
    """Options of Compacter."""

    reduction: int = Field(default=32, ge=1, description="D / R")
    terms: int = Field(default=4, ge=1, le=64, description="how many products n are summed")
    rank: int = Field(default=1, ge=1, le=1024, description="rank of each W_i")
    form: Literal["compacter", "phm"] = Field(
        default="compacter", description="one A and W_i of a rank, or an A a layer and whole W_i"
    )
    branches: Literal["both", "mlp"] = Field(
        default="both", description="on attention and MLP, or on the MLP alone"
    )
    train_norms: bool = Field(default=True, description="train copies of all layer norms, too")


class Compacter(BlocksAdapter):
    """Bottlenecks on both branches whose weights are sums of Kronecker products."""

    name = "compacter"
    title = "Compacter"
    paper = "arXiv:2106.04647"
    year = 2021
    tokenwise = True
    Options = CompacterOptions
    stacks_over = frozenset({"reduction", "rank"})
    in_branches: ClassVar = True
    constants: ClassVar[dict[str, float]] = {}
    options: CompacterOptions

    @property
    def sites(self) -> frozenset[Site]:
        """The outputs of the branches, and the norms."""
        ends = {Site.MLP} | ({Site.ATTN} if self.options.branches == "both" else set())
        return frozenset(ends | (NORMS if self.options.train_norms else set()))

    def misfit(self, anatomy: Anatomy) -> str:
        """Names a width that the number of terms does not divide."""
        terms = self.options.terms
        for _, block in self.stands_in(anatomy):
            if block.width % terms:
                return f"its width is {block.width}, and terms={terms} does not divide that"
        return super().misfit(anatomy)

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """The factors, and the A that they share."""
        tensors, n = super().create(anatomy, generator).trainable, self.options.terms
        if self.options.form == "compacter":
            tensors["shared.rule"] = torch.empty(n, n, n).normal_(std=1e-4, generator=generator)
        return Created(trainable=tensors)

    def start(self, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The factors of both layers; biases `[n, out / n]`, zero."""
        tensors, n = {}, self.options.terms
        inner = math.ceil(width / (n * self.options.reduction))
        for layer, inputs, outputs in (("down", width // n, inner), ("up", inner, width // n)):
            if self.options.form == "phm":
                rule = tensors[f"{layer}.rule"] = torch.empty(n, n, n)
                rule.normal_(std=0.01, generator=generator)
                tensors[f"{layer}.weight"] = spread(n, inputs, outputs, generator)
            else:
                rank = self.options.rank
                tensors[f"{layer}.left"] = spread(n, inputs, rank, generator)
                tensors[f"{layer}.right"] = spread(n, rank, outputs, generator)
            tensors[f"{layer}.bias"] = torch.zeros(n, outputs)
        return tensors

    def added(
        self, tensors: Tensors, x: Tensor, y: Tensor, masks: Tensors, block: BlockAnatomy
    ) -> Tensor:
        """The bottleneck of the branch's output y."""
        hidden = F.gelu(hypercomplex(y, tensors, "down"), approximate="tanh")
        return hypercomplex(hidden, tensors, "up")


def spread(n: int, inputs: int, outputs: int, generator: torch.Generator) -> Tensor:
    """n matrices, each Xavier-uniform with gain sqrt 2."""
    bound = math.sqrt(12 / (inputs + outputs))
    return torch.empty(n, inputs, outputs).uniform_(-bound, bound, generator=generator)


def hypercomplex(x: Tensor, tensors: Tensors, layer: str) -> Tensor:
    """x H + b: H `[in, out]` the sum of A_i kron W_i."""
    if f"{layer}.rule" in tensors:
        rule, terms = tensors[f"{layer}.rule"], tensors[f"{layer}.weight"]
    else:
        rule, terms = tensors["rule"], tensors[f"{layer}.left"] @ tensors[f"{layer}.right"]
    return kron_linear(x, rule.mT, terms.mT) + tensors[f"{layer}.bias"].flatten()
