"""The anatomy of a backbone: its blocks, their sites and shapes, and its frozen tensors.

A family creates its tensors from it. `backbones/anatomy.py` measures it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from idat_zoo.adapters.sites import Site, SiteShape
from idat_zoo.adapters.tensors import Tensors


@dataclass(frozen=True, kw_only=True)
class BlockAnatomy:
    """One block: its sites, prefix tokens, grid of patches (rows, columns) and attention heads.

    `prefix` counts the tokens before the grid. `num_heads` is 0 where there is no attention.
    `number` is the block's index among the `depth` blocks.
    """

    number: int
    depth: int
    sites: Mapping[Site, SiteShape]
    prefix: int
    grid: tuple[int, int]
    num_heads: int

    @property
    def width(self) -> int:
        """D of the residual stream."""
        return self.sites[Site.AFTER_MLP].outputs

    @property
    def hidden(self) -> int:
        """The hidden width of the MLP."""
        return self.sites[Site.FC2].inputs

    @property
    def tokens(self) -> int:
        """N of the residual stream, prefix tokens and grid."""
        return self.sites[Site.AFTER_MLP].tokens

    @property
    def norm_last(self) -> bool:
        """Whether norms follow their branch; `sites` are in the order of the forward pass."""
        order = list(self.sites)
        return order.index(Site.NORM2) > order.index(Site.FC2)

    @property
    def branches(self) -> int:
        """The number of residual branches: 2 with attention, 1 with an MLP alone."""
        return 2 if Site.ATTN in self.sites else 1


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """What a family may know of a backbone, as measured: its kind, its blocks and its two ends.

    `ends` has the shapes of patch_embed, final_norm and features. `frozen` returns the frozen
    tensors (`weight`, `bias`) that are read at a site of a block: patch_embed has block -1,
    final_norm and features have the depth. `parameters` returns a block's parameters by timm's
    names, with those between the previous block and it; -1 and the depth have the remaining ones.
    `body` is timm's network, for PEFT's tuners, which modify it; its tensors are on the meta device
    where no weights are loaded. `image` is the shape of its input.
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
        """The number of blocks."""
        return len(self.blocks)

    @property
    def num_features(self) -> int:
        """D of the pooled features."""
        return self.ends[Site.FEATURES].outputs

    @property
    def sites(self) -> frozenset[Site]:
        """The sites that every block has, and those at the ends."""
        return frozenset.intersection(*(frozenset(b.sites) for b in self.blocks)) | set(self.ends)

    @property
    def sites_of_any(self) -> frozenset[Site]:
        """The sites that at least one block has, and those at the ends."""
        return frozenset.union(*(frozenset(b.sites) for b in self.blocks)) | set(self.ends)

    def shape(self, site: Site, block: int) -> SiteShape:
        """The shape of one image's values at a site of a block."""
        return self.ends[site] if site in self.ends else self.blocks[block].sites[site]

    def block(self, number: int) -> BlockAnatomy:
        """A block by number; -1 gives the first block, the depth the last."""
        return self.blocks[min(max(number, 0), self.depth - 1)]
