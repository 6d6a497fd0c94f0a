"""Full fine-tuning: every parameter of the backbone learns, from where it was pretrained.

What is trained is a copy (`body.NAME`, timm's names), which takes the place of the frozen parameter
in every pass; the frozen backbone itself stays as it was, so other adapters may share it, and what
is published is the whole network again. With fewer `blocks` it is the fine-tuning of the last
layers: `blocks=last2` trains the last two and what follows them. What stands between two stages
belongs to the block behind it; what comes before the first block, to the first.

It starts as the frozen network. Numbers: all of the backbone's, less those that no pass reads.
Merged, it is timm's network with the trained parameters. Tasks never share a pass: each has a
backbone of its own. There is no code of authors: held to timm's own network with its parameters
replaced.
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
        """Its blocks' inputs; where a stage begins, what leads there from the block before, too."""
        began = {
            Place(i - 1, Site.AFTER_MLP)
            for i, block in self.stands_in(anatomy)
            if i and _size(block) != _size(anatomy.blocks[i - 1])
        }
        return super().places_on(anatomy) | began

    def merges_at(self, anatomy: Anatomy) -> frozenset[Place]:
        """Nowhere: its tensors are the merged network's."""
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
        """y: it was computed with the copies."""
        return y


def _size(block: BlockAnatomy) -> tuple[int, int]:
    return block.tokens, block.width
