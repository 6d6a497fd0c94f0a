"""Adapters that add to each block's residual stream: once per block, or once per branch.

Shape letters: B batch, N tokens, D width.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.copies import NORMS, copies_of
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Created, Tensors

BRANCHES = {
    Site.ATTN: "attn.",
    Site.AFTER_ATTN: "attn.",
    Site.MLP: "mlp.",
    Site.AFTER_MLP: "mlp.",
}
"""How the tensors at a branch are named, in families that have some for each branch."""


class BlocksAdapter(Adapter):
    """A family with tensors of the block's width, for each block or each of its `BRANCHES`.

    A family that also acts at norms trains copies of them.
    """

    in_branches: ClassVar[bool] = False
    options: Any  # those of a family, with a scale

    def sites_on(self, anatomy: Anatomy) -> frozenset[Site]:
        """Its sites, without the norms that the backbone lacks."""
        return self.sites - (NORMS - anatomy.sites)

    @property
    def constants(self) -> dict[str, float]:
        """The scale."""
        return {"scale": self.options.scale}

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """Each block's tensors, as `start` draws them, and the copies of norms."""
        branches = dict.fromkeys(BRANCHES[site] for site in BRANCHES if site in self.sites)
        tensors = {
            f"blocks.{i}.{branch}{name}": tensor
            for i, block in self.stands_in(anatomy)
            for branch in (branches if self.in_branches else [""])
            for name, tensor in self.start(block.width, generator).items()
        }
        return Created(trainable=tensors | copies_of(self, anatomy))

    def copies(self, site: Site) -> tuple[str, ...]:
        """Both tensors of a norm."""
        return ("weight", "bias") if site in NORMS else ()

    @abstractmethod
    def start(self, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """New tensors for one block, or for one of its branches."""

    @abstractmethod
    def added(
        self, tensors: Tensors, x: Tensor, y: Tensor, masks: Tensors, block: BlockAnatomy
    ) -> Tensor:
        """The value added to a site's y.

        `tensors`: those of `start`, the shared ones and the constants.
        """

    def apply(
        self,
        site: Site,
        tensors: Tensors,
        x: Tensor,
        y: Tensor,
        *,
        frozen: Tensors,
        masks: Tensors,
        block: BlockAnatomy,
    ) -> Tensor:
        """[B, N, D] and [B, N, D] -> [B, N, D]."""
        if site not in BRANCHES:
            return y
        if self.in_branches:
            tensors = {n.removeprefix(BRANCHES[site]): t for n, t in tensors.items()}
        return y + self.added(tensors, x, y, masks, block)
