"""Full fine-tuning: training of every parameter of the backbone, from its pretrained values.

It trains copies (`body.NAME`, timm's names), which replace the frozen parameters in every pass. The
frozen backbone itself does not change, so other adapters may share it, and the published adapter
holds the whole network. With fewer `blocks` it is fine-tuning of the last layers: `blocks=last2`
trains the last two blocks and what follows them. Layers between two stages belong to the block
after them, and those before the first block to the first.

It starts as the frozen network, and trains all parameters of the backbone except those that no pass
reads. Merged, it is timm's network with the trained parameters. Tasks never share a pass, as each
has a backbone of its own. There is no authors' code; it is tested against timm's own network with
its parameters replaced.
"""

from typing import ClassVar

import torch
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.sites import EMBED, Place, Site
from idat_zoo.adapters.tensors import Created, Tensors
from idat_zoo.option_words import InBlocks


class FullOptions(InBlocks):
    """Options of full fine-tuning."""


class Full(Adapter):
    """All parameters of the backbone, or of some of its blocks."""

    name = "full"
    title = "Full fine-tuning"
    paper = ""
    year = 0
    Options = FullOptions
    options: FullOptions
    sites: ClassVar = frozenset({Site.PATCH_EMBED, Site.BLOCK_INPUT})
    mergeable = True
    stackable = False
    trains_copies = True

    def places_on(self, anatomy: Anatomy) -> frozenset[Place]:
        """The inputs of its blocks; at the start of a stage, also the previous block's output."""
        began = {
            Place(i - 1, Site.AFTER_MLP)
            for i, block in self.stands_in(anatomy)
            if i and _size(block) != _size(anatomy.blocks[i - 1])
        }
        return super().places_on(anatomy) | began

    def merges_at(self, anatomy: Anatomy) -> frozenset[Place]:
        """No place: the merged network takes its tensors directly."""
        return frozenset()

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """Copies of the backbone's parameters."""
        numbers = set(self.numbers_in(anatomy))
        ends = {EMBED: 0, anatomy.depth: anatomy.depth - 1}
        return Created(
            trainable={
                f"body.{name}": tensor.clone().float()
                for i in range(EMBED, anatomy.depth + 1)
                if ends.get(i, i) in numbers
                for name, tensor in anatomy.parameters(i).items()
            }
        )

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


def _size(block: BlockAnatomy) -> tuple[int, int]:
    return block.tokens, block.width
