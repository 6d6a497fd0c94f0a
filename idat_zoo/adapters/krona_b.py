"""KronA_B and KronA_res: a Kronecker product beside each block's MLP.

Edalati et al., arXiv:2212.10650. With u the MLP's normalised input, its branch becomes

    mlp(u) + s (A kron B) u                 KronA_B
    mlp(u) + s (A kron B) u + g u           KronA_res

with A of a1 by a2 numbers and B of b1 by b2, a1 b1 = a2 b2 = D, and a learned number g in each
block. By default A is the taller one, with divisors of D nearest to its root: 32 by 24 and 24 by 32
at a width of 768, so L 2 D numbers there, and L more with g. `rows` and `columns` are those of A,
where they are set; they must divide D. A starts normal with a standard deviation of 1 / a1, B and g
at 0, so training starts from the frozen network.

The authors released no code, and this is read from descriptions of their paper, not from its text:
ours is held to `torch.kron` beside timm's own MLP. A port of others starts g at 1
(`residual_start=1`). What is added joins the branch before drop path. By option, `input=stream`
reads the stream after attention, not normalised, and adds after drop path; `terms` products are
summed. Neither can be merged: the MLP is not linear.
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.blocks import BlocksAdapter
from idat_zoo.adapters.kronecker import kron_linear, nearest_factors
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Tensors
from idat_zoo.option_words import InBlocks


class KronABOptions(InBlocks):
    """Options of KronA_B."""

    scale: float = Field(default=1.0, gt=0, description="factor on A kron B")
    rows: int = Field(default=0, ge=0, description="rows of A; 0: near the root")
    columns: int = Field(default=0, ge=0, description="columns of A; 0: near the root")
    terms: int = Field(default=1, ge=1, le=256, description="how many products are summed")
    input: Literal["normed", "stream"] = Field(
        default="normed", description="read what the MLP reads, or the stream before its norm"
    )


class KronAResOptions(KronABOptions):
    """Options of KronA_res."""

    residual_start: float = Field(default=0.0, ge=0, description="where the learned g starts")


class KronAB(BlocksAdapter):
    """A Kronecker product of two small matrices beside each MLP."""

    name = "krona_b"
    title = "KronA_B"
    paper = "arXiv:2212.10650"
    year = 2022
    Options: ClassVar = KronABOptions
    stacks_over = frozenset({"scale", "terms"})
    tokenwise = True
    options: KronABOptions

    @property
    def sites(self) -> frozenset[Site]:
        """The MLP's branch, or the stream after it."""
        return frozenset({Site.MLP if self.options.input == "normed" else Site.AFTER_MLP})

    def misfit(self, anatomy: Anatomy) -> str:
        """Names a width that the rows or columns of A do not divide."""
        for _, block in self.stands_in(anatomy):
            for number, what in zip(self._shape(block.width), ("rows", "columns"), strict=True):
                if block.width % number:
                    return f"its width is {block.width}, and {what}={number} does not divide that"
        return super().misfit(anatomy)

    def _shape(self, width: int) -> tuple[int, int]:
        """The rows and columns of A."""
        small, large = nearest_factors(width)
        return self.options.rows or large, self.options.columns or small

    def start(self, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """A normal, B zero."""
        rows, columns = self._shape(width)
        terms = self.options.terms
        left = torch.empty(terms, rows, columns).normal_(std=1 / rows, generator=generator)
        return {"left": left, "right": torch.zeros(terms, width // rows, width // columns)}

    def added(
        self, tensors: Tensors, x: Tensor, y: Tensor, masks: Tensors, block: BlockAnatomy
    ) -> Tensor:
        """s (A kron B) x."""
        return kron_linear(x, tensors["left"], tensors["scale"] * tensors["right"])


class KronARes(KronAB):
    """KronA_B with a learned residual beside it."""

    name = "krona_res"
    title = "KronA_res"
    Options: ClassVar = KronAResOptions
    options: KronAResOptions

    def start(self, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """A normal, B zero; the residual as its option says."""
        gate = torch.full((1,), self.options.residual_start)
        return {**super().start(width, generator), "gate": gate}

    def added(self, tensors: Tensors, x: Tensor, *others: Any) -> Tensor:
        """s (A kron B) x + g x."""
        return super().added(tensors, x, *others) + tensors["gate"] * x
