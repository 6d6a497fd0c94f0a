"""ARC: one matrix for all blocks, applied down and up again, and rescaled in each block.

arXiv:2310.06234, code DavidYanAnDe/ARC 8227d57: u' = u + D (s * (D^T u)) + c, with u the output of
norm1 (before q, k and v) and of norm2 (before fc1). All blocks share one D x R matrix D at norm1
and another at norm2; each block has its own s (R) and c (D): 2 D R + 2 L (R + D) parameters. D is
Xavier-uniform; s is 0 at norm1, and at norm2 Xavier-uniform as a matrix of one row, within the root
of 6 / (1 + R); c is 0. So the network is perturbed from step 0, as released. Dropout of 0.1 (their
scripts' default) acts on the R hidden features. There is no scale factor.

It folds into the layers that read u: W P and b + W c with P = I + D diag(s) D^T; the authors
released no merge. It does not fit blocks of different widths (name the blocks of one stage) or
norms after a branch (SwinV2), and cannot be merged where windows are padded. As released, the
authors' script for VTAB trains only the head, by a filter of names; this is what their other script
trains.
"""

import torch
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.masks import Mask, masked
from idat_zoo.adapters.normed import NormedAdapter
from idat_zoo.adapters.sites import Site, SiteShape
from idat_zoo.adapters.tensors import Created, Tensors
from idat_zoo.option_words import InBlocks


class ARCOptions(InBlocks):
    """Options of ARC."""

    rank: int = Field(default=50, ge=1, description="columns R of the shared matrix")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="drop rate on the bottleneck")


class ARC(NormedAdapter):
    """A shared symmetric bottleneck, rescaled in each block, before attention and the MLP."""

    name = "arc"
    title = "ARC"
    paper = "arXiv:2310.06234"
    year = 2023
    Options = ARCOptions
    stacks_over = frozenset({"rank", "dropout"})
    options: ARCOptions

    def misfit(self, anatomy: Anatomy) -> str:
        """Also refuses blocks of different widths."""
        widths = sorted({block.width for _, block in self.stands_in(anatomy)})
        if len(widths) > 1:
            return f"one matrix serves all blocks, and they are {widths[0]} to {widths[-1]} wide"
        return super().misfit(anatomy)

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """The matrices and norm2's scales Xavier-uniform, all else 0."""
        rank = self.options.rank
        tensors: dict[str, Tensor] = {}

        def xavier(*shape: int) -> Tensor:
            return torch.nn.init.xavier_uniform_(torch.empty(shape), generator=generator)

        for i, site in sorted(self.places_on(anatomy)):
            width, at = anatomy.blocks[i].width, f"blocks.{i}.{site}"
            if f"shared.{site}.basis" not in tensors:
                tensors[f"shared.{site}.basis"] = xavier(width, rank)
            first = site is Site.NORM1
            tensors[f"{at}.scale"] = torch.zeros(rank) if first else xavier(1, rank).flatten()
            tensors[f"{at}.shift"] = torch.zeros(width)
        return Created(trainable=tensors)

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """Dropout on the bottleneck."""
        inner = (shape.tokens, self.options.rank)
        return {"dropout": Mask(shape=inner, rate=self.options.dropout)}

    def change(self, tensors: Tensors, u: Tensor, masks: Tensors) -> Tensor:
        """u + D (s * (D^T u)) + c."""
        basis = tensors["basis"]
        hidden = masked(u @ (basis * tensors["scale"]), masks, "dropout")
        return u + hidden @ basis.mT + tensors["shift"]
