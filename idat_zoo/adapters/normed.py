"""Changes of the outputs of a block's norms, before its linear layers read them.

The change is affine, u' = P u + c, so it folds into the layers that read u: W becomes W P, and b
becomes b + W c. Those layers are qkv (or q, k and v) after norm1, and fc1 (and the gate of a gated
MLP) after norm2. A block without attention has norm2 alone.

Shape letters: B batch, N tokens, D width.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.layers import own_of
from idat_zoo.adapters.sites import Place, Site
from idat_zoo.adapters.tensors import Tensors

READERS = {Site.NORM1: (Site.QKV, Site.Q, Site.K, Site.V), Site.NORM2: (Site.FC1, Site.GATE)}
"""What reads a norm's output."""


class NormedAdapter(Adapter):
    """A family that changes the outputs of norms and is merged into the layers after them."""

    mergeable = True
    tokenwise = True

    @property
    def sites(self) -> frozenset[Site]:
        """Both norms."""
        return frozenset(READERS)

    def sites_on(self, anatomy: Anatomy) -> frozenset[Site]:
        """Those of its norms that the backbone has."""
        return (self.sites & anatomy.sites_of_any) or self.sites

    def misfit(self, anatomy: Anatomy) -> str:
        """Also refuses norms that come last: their output joins the stream and enters no layer."""
        if any(block.norm_last for _, block in self.stands_in(anatomy)):
            return "its norms come behind attention and MLP, not before them"
        return super().misfit(anatomy)

    def merges_at(self, anatomy: Anatomy) -> frozenset[Place]:
        """The layers that read what it changes."""
        return frozenset(
            Place(i, reader)
            for i, site in self.places_on(anatomy)
            for reader in READERS[site]
            if reader in anatomy.blocks[i].sites
        )

    def why_unmerged(self, anatomy: Anatomy) -> str:
        """Also refuses padded windows, whose zeros bypass the norm, and gated attention."""
        for i, site in sorted(self.places_on(anatomy)):
            sites = anatomy.blocks[i].sites
            if site is Site.NORM1 and Site.QKV in sites:
                if sites[Site.QKV].tokens != sites[site].tokens:
                    return f"windows of block {i} are padded with zeros, which it does not change"
                if any(".attn.gate." in name for name in anatomy.parameters(i)):
                    return f"the gate of attention in block {i} reads what it changes"
        return ""

    @abstractmethod
    def change(self, tensors: Tensors, u: Tensor, masks: Tensors) -> Tensor:
        """u' of a norm's output u, [.., D] -> [.., D]; affine.

        `tensors`: the norm's own tensors, the shared ones and the constants.
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
        """u', which replaces the norm's output."""
        return self.change(own_of(tensors, site), y, masks)

    def merge(self, site: Site, tensors: Tensors, frozen: Tensors) -> dict[str, Tensor]:
        """W P and b + W c."""
        norm = next(norm for norm, readers in READERS.items() if site in readers)
        own, weight = own_of(tensors, norm), frozen["weight"]
        steps = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
        moved = self.change(own, torch.zeros_like(steps[0]), {})
        bias = F.linear(moved, weight, frozen.get("bias"))
        return {"weight": weight @ (self.change(own, steps, {}) - moved).mT, "bias": bias}
