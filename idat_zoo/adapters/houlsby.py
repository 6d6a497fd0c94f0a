"""Houlsby's adapters as compared by Adapter+'s authors: a bottleneck on each branch.

Houlsby et al., arXiv:1902.00751 (for language models); tested against visinf/adapter_plus 191c4ab
(Apache-2.0). With u the value that attention, or the MLP, adds to the stream, the stream becomes

    x + u + s drop_path(up(gelu(down(u))))

with biases, R = 8 and s = 1. u is taken after the backbone's drop path, so a dropped branch feeds
zeros and still adds what the biases give. The adapters' own drop path is 0.1 in every block, one
draw per image and branch. Weights start normal of std 0.01 cut at twice that (std 0.0088), biases
at 0: the network does not start as the frozen one. These are 2 L (2 D R + R + D) parameters; copies
of all layer norms, trained by default as by the authors (`train_norms`), are (4 L + 2) D more.

Ours computes u as the difference of two streams. The code of OSU uses this name for a variant with
ReLU and another start.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import BlockAnatomy
from idat_zoo.adapters.copies import NORMS
from idat_zoo.adapters.dropped import DroppedBottleneck, DroppedOptions, dropped, houlsby_start
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Tensors


class HoulsbyOptions(DroppedOptions):
    """Options of Houlsby's adapters."""

    train_norms: bool = Field(default=True, description="train copies of all layer norms, too")


class Houlsby(DroppedBottleneck):
    """A bottleneck on each branch of a block, and by default all layer norms."""

    name = "houlsby"
    title = "Houlsby adapter"
    paper = "arXiv:1902.00751"
    year = 2019
    Options = HoulsbyOptions
    in_branches: ClassVar = True
    options: HoulsbyOptions

    @property
    def sites(self) -> frozenset[Site]:
        """The stream after each branch, and the norms."""
        ends = frozenset({Site.AFTER_ATTN, Site.AFTER_MLP})
        return ends | NORMS if self.options.train_norms else ends

    def start(self, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Both weights near zero."""
        return houlsby_start(width, self.options.bottleneck, generator)

    def added(
        self, tensors: Tensors, x: Tensor, y: Tensor, masks: Tensors, block: BlockAnatomy
    ) -> Tensor:
        """The bottleneck of what the branch added to the stream."""
        return dropped(tensors, y - x, masks)
