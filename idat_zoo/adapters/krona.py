"""KronA on linear layers, by default q and v: a Kronecker product added to the weight.

Edalati et al., arXiv:2212.10650: W becomes W + s (A kron B), with A of a1 by a2 and B of b1 by b2
numbers, a1 b1 outputs and a2 b2 inputs; it can have full rank. A is normal with a standard
deviation of 1 / a1, B is zero, so training starts from the frozen network. By default A is the
taller one, with divisors nearest to the square root: 32 by 24 and 24 by 32 at a width of 768. Then
a layer has a1 a2 + b1 b2 numbers, 2 D where it is square: 4 L D in all. No matrix of D by D is
made: x, as a matrix X, goes to A X B^T.

The authors released no code. Ours is held to `torch.kron`, and to PEFT 0.21.2's LoKr with both
factors full (`factors=small`). The start is that of IBM/DiffuseKronA (6c24fc5), the code that
bears the name; what that computes is no Kronecker product (its rows are shuffled), so it is not
followed. Beyond the paper: `terms` products are summed, and any linear layers may be named.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.kronecker import kron_linear, nearest_factors
from idat_zoo.adapters.layers import Layer, UpdatesAdapter
from idat_zoo.adapters.tensors import Tensors
from idat_zoo.option_words import OnLayers


class KronAOptions(OnLayers):
    """Options of KronA."""

    scale: float = Field(default=1.0, gt=0, description="factor on A kron B")
    factors: Literal["even", "small"] = Field(
        default="even", description="A and B alike in size, or A the small one"
    )
    rows: int = Field(default=0, ge=0, le=65536, description="rows of A; 0: as factors says")
    columns: int = Field(default=0, ge=0, le=65536, description="columns of A; 0: near the root")
    terms: int = Field(default=1, ge=1, le=256, description="how many products are summed")


class KronA(UpdatesAdapter):
    """Kronecker products of two small matrices added to linear layers, by default q and v."""

    name = "krona"
    title = "KronA"
    paper = "arXiv:2212.10650"
    year = 2022
    Options = KronAOptions
    stacks_over = frozenset({"scale", "terms", "parts"})
    options: KronAOptions

    @property
    def constants(self) -> dict[str, float]:
        """The factor on the products."""
        return {"scale": self.options.scale}

    def misfit(self, anatomy: Anatomy) -> str:
        """Names a layer whose outputs the rows, or inputs the columns, do not divide."""
        missing = super().misfit(anatomy)
        if missing:
            return missing
        for layer in self.layers(anatomy):
            rows, columns = self._shape(layer)
            for size, number, what in (
                (layer.outputs, rows, "outputs, and rows"),
                (layer.inputs, columns, "inputs, and columns"),
            ):
                if size % number:
                    return f"its {layer.name} has {size} {what}={number} does not divide that"
        return ""

    def _shape(self, layer: Layer) -> tuple[int, int]:
        """The rows and columns of A."""
        rows = nearest_factors(layer.outputs)[self.options.factors == "even"]
        return self.options.rows or rows, self.options.columns or nearest_factors(layer.inputs)[0]

    def start(self, layer: Layer, generator: torch.Generator) -> dict[str, Tensor]:
        """A normal, B zero."""
        rows, columns = self._shape(layer)
        terms = self.options.terms
        left = torch.empty(terms, rows, columns).normal_(std=1 / rows, generator=generator)
        right = torch.zeros(terms, layer.outputs // rows, layer.inputs // columns)
        return {"left": left, "right": right}

    def update(self, tensors: Tensors, x: Tensor, masks: Tensors) -> Tensor:
        """s (A kron B) x."""
        return kron_linear(x, tensors["left"], tensors["scale"] * tensors["right"])
