"""iDAT's three adapters as released: one bottleneck per block, in three places.

arXiv:2403.15750, code JCruan519/iDAT a12406a. The module is up(gelu(down(x))) with biases, width 4,
no norm, both linears normal of std 0.02, so the network is perturbed from step 0 (no zero-init).
Its input is never normalised and its output is outside drop path. Ours differs in three options:
width and scale may be set, and there is a dropout on the bottleneck, off by default.
"""

from abc import abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.base import (
    Adapter,
    Anatomy,
    BlockAnatomy,
    Created,
    Mask,
    Site,
    SiteShape,
    Tensors,
    masked,
    trunc_normal,
)
from idat_zoo.option_words import InBlocks


class ParallelOptions(InBlocks):
    """Options of a bottleneck beside a branch."""

    bottleneck: int = Field(default=4, ge=1, description="inner width R")
    scale: float = Field(default=0.1, gt=0, description="factor on the adapter's output")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="drop rate on the bottleneck")


class SequentialOptions(ParallelOptions):
    """Options of a bottleneck after a block: at full scale."""

    scale: float = Field(default=1.0, gt=0, description="factor on the adapter's output")


class IdatBottleneck(Adapter):
    """What the three places share: L * (2DR + R + D) numbers and the function A."""

    paper = "arXiv:2403.15750"
    year = 2024
    stacks_over = frozenset({"bottleneck", "scale", "dropout"})
    options: ParallelOptions

    @property
    def constants(self) -> dict[str, float]:
        """The scale."""
        return {"scale": self.options.scale}

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """Weights normal of std 0.02, biases 0."""
        inner = self.options.bottleneck
        tensors: dict[str, Tensor] = {}
        for i, block in self.stands_in(anatomy):
            down = trunc_normal(inner, block.width, std=0.02, generator=generator)
            up = trunc_normal(block.width, inner, std=0.02, generator=generator)
            tensors[f"blocks.{i}.down.weight"] = down
            tensors[f"blocks.{i}.down.bias"] = torch.zeros(inner)
            tensors[f"blocks.{i}.up.weight"] = up
            tensors[f"blocks.{i}.up.bias"] = torch.zeros(block.width)
        return Created(trainable=tensors)

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """Dropout on the bottleneck."""
        inner = (shape.tokens, self.options.bottleneck)
        return {"dropout": Mask(shape=inner, rate=self.options.dropout)}

    @abstractmethod
    def reads(self, x: Tensor, y: Tensor) -> Tensor:
        """Which of a site's two values the bottleneck reads."""

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
        """y + A(x or y)."""
        return y + bottleneck(tensors, self.reads(x, y), masks)


def bottleneck(
    tensors: Tensors, x: Float[Tensor, "B N D"], masks: Tensors
) -> Float[Tensor, "B N D"]:
    """A(x) = scale * up(gelu(down(x)))."""
    hidden = F.gelu(F.linear(x, tensors["down.weight"], tensors["down.bias"]))
    hidden = masked(hidden, masks, "dropout")
    return tensors["scale"] * F.linear(hidden, tensors["up.weight"], tensors["up.bias"])


class Sequential(IdatBottleneck):
    """After every block: y + A(y). The released default (`gist_seq_adapter`), scale 1."""

    name = "sequential"
    title = "iDAT sequential"
    Options = SequentialOptions
    sites: ClassVar = frozenset({Site.AFTER_MLP})

    def reads(self, x: Tensor, y: Tensor) -> Tensor:
        """The block's output."""
        return y


class SharedParallel(IdatBottleneck):
    """The same module beside attention and beside the MLP (`gist_shared_par_adapter`)."""

    name = "shared_parallel"
    title = "iDAT shared parallel"
    Options = ParallelOptions
    sites: ClassVar = frozenset({Site.AFTER_ATTN, Site.AFTER_MLP})

    def reads(self, x: Tensor, y: Tensor) -> Tensor:
        """The stream that enters the branch."""
        return x


class IdatAdaptFormer(IdatBottleneck):
    """Beside the MLP alone (`adaptformer` in iDAT's code).

    Not AdaptFormer as its authors wrote it (arXiv:2205.13535: ReLU, Kaiming down and zero up,
    width 64, dropout 0.1): the name `adaptformer` is kept for that.
    """

    name = "idat_adaptformer"
    title = "AdaptFormer, iDAT's form"
    Options = ParallelOptions
    sites: ClassVar = frozenset({Site.AFTER_MLP})

    def reads(self, x: Tensor, y: Tensor) -> Tensor:
        """The stream after attention."""
        return x
