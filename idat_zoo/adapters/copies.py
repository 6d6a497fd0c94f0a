"""Trained copies of the backbone's own norms or biases: the part that such families share.

Such a family is merged by replacing the frozen tensors with the copies. Only what is a site of the
walk has copies. These are not sites: norms of queries and keys, norms inside attention or inside an
MLP, norms before the first block, after the patch projection and between stages, ConvNeXt's
depthwise convolutions, and the layers between its stages.
"""

import torch
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Created, Tensors, home_of
from idat_zoo.option_words import InBlocks

NORMS = frozenset({Site.NORM1, Site.NORM2, Site.FINAL_NORM})
LINEAR = frozenset({Site.QKV, Site.Q, Site.K, Site.V, Site.PROJ, Site.FC1, Site.GATE, Site.FC2})


class CopiesOptions(InBlocks):
    """Options of families that train copies."""


def copies_of(adapter: Adapter, anatomy: Anatomy) -> dict[str, Tensor]:
    """Float32 copies of what a family trains (`Adapter.copies`), at all places where it acts."""
    return {
        f"{home_of(block, anatomy.depth)}{site}.{name}": tensor.clone().float()
        for block, site in sorted(adapter.places_on(anatomy))
        for name, tensor in anatomy.frozen(site, block).items()
        if name in adapter.copies(site)
    }


class Copies(Adapter):
    """A family that trains copies and changes nothing else."""

    tokenwise = True
    Options = CopiesOptions
    options: CopiesOptions
    mergeable = True

    def sites_on(self, anatomy: Anatomy) -> frozenset[Site]:
        """Those of its sites that the backbone has."""
        return self.sites & anatomy.sites_of_any

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """The copies."""
        return Created(trainable=copies_of(self, anatomy))

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
        """y as it is: the backbone computed it with the copies."""
        return y

    def merge(self, site: Site, tensors: Tensors, frozen: Tensors) -> dict[str, Tensor]:
        """The frozen tensors, which already include the copies."""
        return dict(frozen)
