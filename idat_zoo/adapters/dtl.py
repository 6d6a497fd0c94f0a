"""DTL: a thin side network that reads the input of each block and is added to the later ones.

Fu et al., arXiv:2312.07856; code heekhero/DTL bf6c51e. Before each block, h, which starts at 0,
becomes h + B A x, with the block's input x, A of R by D and B of D by R. After each block of
`add_after`, x becomes x + h sigmoid(beta h). With `fusion` = 3 (DTL+), h sigmoid(beta h) passes one
3 x 3 depthwise convolution on the grid's tokens, shared by all blocks. It trains 2 L D R
parameters; the convolution has 9 D.

A is Kaiming-uniform (a = sqrt 5), B zero, the convolution uniform within 1 / 3; there is no
dropout. As released, the mean of the last block's patches is pooled, before the last norm, so
training starts from the frozen network only with `mean_pool=no`. Ours works at any depth and with
`blocks`.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.on_grid import depthwise
from idat_zoo.adapters.sites import Place, Site
from idat_zoo.adapters.tensors import Carry, Created, Tensors, kaiming_uniform
from idat_zoo.option_words import HALF, HalfOrBlocks, InBlocks, chosen_blocks


class DTLOptions(InBlocks):
    """Options of DTL."""

    rank: int = Field(default=2, ge=1, le=65536, description="rank R of what is read")
    add_after: HalfOrBlocks = Field(default=HALF, description="half, or where it comes back")
    fusion: Literal[0, 3] = Field(default=0, description="side of the convolution; 0: none")
    beta: float = Field(default=100.0, gt=0, description="steepness of the gate")
    mean_pool: bool = Field(default=True, description="pool the patches' mean, before the norm")


class DTL(Adapter):
    """A thin network that reads each block's input and is added to the later ones."""

    name = "dtl"
    title = "DTL, DTL+"
    paper = "arXiv:2312.07856"
    year = 2023
    Options = DTLOptions
    sites = frozenset({Site.BLOCK_INPUT, Site.AFTER_MLP})
    stacks_over = frozenset({"rank", "beta"})
    options: DTLOptions

    @property
    def constants(self) -> dict[str, float]:
        """The steepness of the gate."""
        return {"beta": self.options.beta}

    def places_on(self, anatomy: Anatomy) -> frozenset[Place]:
        """The inputs of its blocks, the outputs that h is added to, and the pooled output."""
        numbers, adds = self.numbers_in(anatomy), [anatomy.depth - 1] * self.options.mean_pool
        adds += chosen_blocks(self.options.add_after, anatomy.depth)
        reads = {Place(i, Site.BLOCK_INPUT) for i in numbers}
        return frozenset(reads | {Place(i, Site.AFTER_MLP) for i in adds if i >= numbers[0]})

    def misfit(self, anatomy: Anatomy) -> str:
        """Refuses blocks of different shapes, and options under which h is added nowhere."""
        try:
            adds = chosen_blocks(self.options.add_after, anatomy.depth)
        except ValueError as error:
            return f"add_after: {error}"
        first, last = self.numbers_in(anatomy)[0], self.numbers_in(anatomy)[-1]
        if adds[-1] < last:
            return f"what is read before block {last} comes back nowhere: see add_after"
        sizes = {(own.tokens, own.width) for own in anatomy.blocks[first : adds[-1] + 1]}
        return "the tokens of its blocks are of unlike number and width" * (len(sizes) > 1)

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """A Kaiming-uniform and B zero; the convolution as PyTorch starts it."""
        tensors, rank = dict[str, Tensor](), self.options.rank
        width = self.stands_in(anatomy)[0][1].width
        for i in self.numbers_in(anatomy):
            tensors[f"blocks.{i}.down.weight"] = kaiming_uniform(rank, width, generator=generator)
            tensors[f"blocks.{i}.up.weight"] = torch.zeros(width, rank)
        if self.options.fusion:
            conv = kaiming_uniform(width, 9, generator=generator)
            tensors["shared.conv.weight"] = conv.view(width, 1, 3, 3)
        return Created(trainable=tensors)

    def apply(self, site: Site, tensors: Tensors, x: Tensor, y: Tensor, **more: Any) -> Tensor:
        """As `apply_carrying`."""
        return self.apply_carrying(site, tensors, x, y, {}, **more)[0]

    def apply_carrying(
        self,
        site: Site,
        tensors: Tensors,
        x: Tensor,
        y: Tensor,
        carry: Carry,
        *,
        frozen: Tensors,
        masks: Tensors,
        block: BlockAnatomy,
    ) -> tuple[Tensor, Carry]:
        """[B, N, D] -> [B, N, D], and the side network's h of the same shape."""
        beside = carry.get("beside")
        if site is Site.BLOCK_INPUT:
            read = F.linear(F.linear(x, tensors["down.weight"]), tensors["up.weight"])
            return y, {"beside": read if beside is None else beside + read}
        added = block.number in chosen_blocks(self.options.add_after, block.depth)
        if added and beside is not None:
            h = beside * torch.sigmoid(tensors["beta"] * beside)
            y = y + (depthwise(h, tensors["conv.weight"], block) if self.options.fusion else h)
        if self.options.mean_pool and block.number == block.depth - 1:
            y = y[:, block.prefix :].mean(1, keepdim=True).expand_as(y)
        return y, carry
