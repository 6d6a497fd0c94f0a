"""What families share that train copies of the backbone's own norms or biases.

Such a family is merged by putting the copies in their places. What is no site of the walk has no
copies: norms of queries and keys, those inside attention or inside an MLP, before the first block,
behind a patches' projection and between stages; ConvNeXt's depthwise convolution, and what stands
between its stages.
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
    """Options of what trains copies."""


def copies_of(adapter: Adapter, anatomy: Anatomy) -> dict[str, Tensor]:
    """What a family copies (`Adapter.copies`), in float32, at all places where it stands."""
    return {
        f"{home_of(block, anatomy.depth)}{site}.{name}": tensor.clone().float()
        for block, site in sorted(adapter.places_on(anatomy))
        for name, tensor in anatomy.frozen(site, block).items()
        if name in adapter.copies(site)
    }


class Copies(Adapter):
    """A family of copies: it changes nothing besides."""

    Options = CopiesOptions
    options: CopiesOptions
    mergeable = True

    def sites_on(self, anatomy: Anatomy) -> frozenset[Site]:
        """Those of its sites that there are."""
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
        """y: it was computed with the copies."""
        return y

    def merge(self, site: Site, tensors: Tensors, frozen: Tensors) -> dict[str, Tensor]:
        """What there is, copies among it."""
        return dict(frozen)
