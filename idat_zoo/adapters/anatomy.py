"""The anatomy of a backbone: its blocks, their sites and shapes, and its frozen tensors.

It is what a family is given to create its tensors; `backbones/anatomy.py` measures it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from idat_zoo.adapters.sites import Site, SiteShape
from idat_zoo.adapters.tensors import Tensors


@dataclass(frozen=True, kw_only=True)
class BlockAnatomy:
    """One block: its sites, the tokens before its grid, the grid (rows, columns), its heads.

    `num_heads` is 0 where there is no attention. `number` is the block's, of so many (`depth`).
    """

    number: int
    depth: int
    sites: Mapping[Site, SiteShape]
    prefix: int
    grid: tuple[int, int]
    num_heads: int

    @property
    def width(self) -> int:
        """D of the stream."""
        return self.sites[Site.AFTER_MLP].outputs

    @property
    def hidden(self) -> int:
        """The width inside its MLP."""
        return self.sites[Site.FC2].inputs

    @property
    def tokens(self) -> int:
        """N of the stream, prefix and grid."""
        return self.sites[Site.AFTER_MLP].tokens

    @property
    def norm_last(self) -> bool:
        """Whether its norms come behind what they are of: sites are in the order of the walk."""
        order = list(self.sites)
        return order.index(Site.NORM2) > order.index(Site.FC2)

    @property
    def branches(self) -> int:
        """How many branches are added to the stream: attention's, if there is any, and the MLP."""
        return 2 if Site.ATTN in self.sites else 1


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """A backbone as a family may know it, as it was measured: its kind, blocks and two ends.

    `ends` has the shapes of patch_embed, final_norm and features. `frozen` gives the frozen tensors
    that are read at a site of a block (`weight`, `bias`): the block of patch_embed is -1, that of
    final_norm and features is the depth. `parameters` gives all of a block by timm's names, with
    what comes between the block before and it; those of -1 and of the depth are all others. `body`
    is timm's network, of no values where none are loaded, and `image` the shape of what it takes:
    for PEFT's tuners, which change it.
    """

    kind: str
    blocks: tuple[BlockAnatomy, ...]
    ends: Mapping[Site, SiteShape]
    frozen: Callable[[Site, int], Tensors] = field(repr=False, compare=False)
    parameters: Callable[[int], Tensors] = field(repr=False, compare=False)
    body: Any = field(repr=False, compare=False)
    image: tuple[int, ...]

    @property
    def depth(self) -> int:
        """How many blocks there are."""
        return len(self.blocks)

    @property
    def num_features(self) -> int:
        """D of the pooled features."""
        return self.ends[Site.FEATURES].outputs

    @property
    def sites(self) -> frozenset[Site]:
        """The sites that it has: in every block, and at its ends."""
        return frozenset.intersection(*(frozenset(b.sites) for b in self.blocks)) | set(self.ends)

    @property
    def sites_of_any(self) -> frozenset[Site]:
        """The sites that some block has, and those at its ends."""
        return frozenset.union(*(frozenset(b.sites) for b in self.blocks)) | set(self.ends)

    def shape(self, site: Site, block: int) -> SiteShape:
        """What one image has at a site."""
        return self.ends[site] if site in self.ends else self.blocks[block].sites[site]

    def block(self, number: int) -> BlockAnatomy:
        """A block; the first stands for what comes before it, the last for what follows."""
        return self.blocks[min(max(number, 0), self.depth - 1)]
