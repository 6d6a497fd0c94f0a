"""Pfeiffer's adapter as compared by Adapter+'s authors: a normed bottleneck after each block.

Pfeiffer et al., arXiv:2005.00247 (for language models); tested against visinf/adapter_plus 191c4ab
(Apache-2.0). With x the block's output, it becomes

    x + s drop_path(up(gelu(down(norm(x)))))

with biases, a layer norm of the adapter's own (eps 1e-6), R = 8 and s = 1. It is Adapter+ in its
post position, with that norm and without learned scales; the codes of VPT and OSU use this name for
a bottleneck inside the MLP's branch. The drop path is the adapter's own: 0.1 in every block, one
draw per image. Weights start normal of std 0.02, biases at 0, the norm at 1 and 0: the network does
not start as the frozen one. It trains L (2 D R + R + 3 D) parameters.
"""

from typing import ClassVar

import torch
from torch import Tensor

from idat_zoo.adapters.anatomy import BlockAnatomy
from idat_zoo.adapters.bottleneck import fresh_norm
from idat_zoo.adapters.dropped import DroppedBottleneck, DroppedOptions, bert_start, dropped
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Tensors


class PfeifferOptions(DroppedOptions):
    """Options of Pfeiffer's adapter."""


class Pfeiffer(DroppedBottleneck):
    """A bottleneck with a norm of its own behind each block."""

    name = "pfeiffer"
    title = "Pfeiffer adapter"
    paper = "arXiv:2005.00247"
    year = 2020
    Options = PfeifferOptions
    sites: ClassVar = frozenset({Site.AFTER_MLP})

    def start(self, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Both weights normal of std 0.02, and a new norm."""
        return bert_start(width, self.options.bottleneck, generator) | fresh_norm(width)

    def added(
        self, tensors: Tensors, x: Tensor, y: Tensor, masks: Tensors, block: BlockAnatomy
    ) -> Tensor:
        """The bottleneck of the block's output."""
        return dropped(tensors, y, masks)
