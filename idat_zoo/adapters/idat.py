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
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import BlockAnatomy
from idat_zoo.adapters.bottleneck import (
    BottleneckAdapter,
    BottleneckOptions,
    bottleneck,
    with_biases,
)
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Tensors, trunc_normal


class ParallelOptions(BottleneckOptions):
    """Options of a bottleneck beside a branch."""

    bottleneck: int = Field(default=4, ge=1, description="inner width R")
    scale: float = Field(default=0.1, gt=0, description="factor on the adapter's output")


class SequentialOptions(ParallelOptions):
    """Options of a bottleneck after a block: at full scale."""

    scale: float = Field(default=1.0, gt=0, description="factor on the adapter's output")


class IdatBottleneck(BottleneckAdapter):
    """The base of the three places: L * (2DR + R + D) parameters and the function A."""

    paper = "arXiv:2403.15750"
    year = 2024
    tokenwise = True
    options: ParallelOptions

    def start(self, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Weights normal of std 0.02, biases 0."""
        inner = self.options.bottleneck
        down = trunc_normal(inner, width, std=0.02, generator=generator)
        return with_biases(down, trunc_normal(width, inner, std=0.02, generator=generator))

    @abstractmethod
    def reads(self, x: Tensor, y: Tensor) -> Tensor:
        """The one of a site's two values that the bottleneck reads."""

    def added(
        self, tensors: Tensors, x: Tensor, y: Tensor, masks: Tensors, block: BlockAnatomy
    ) -> Tensor:
        """A(x or y) = scale * up(gelu(down(x or y)))."""
        return tensors["scale"] * bottleneck(tensors, self.reads(x, y), masks, act=F.gelu)


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
