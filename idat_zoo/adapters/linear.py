"""The linear probe: a trained head on the frozen backbone, without an adapter.

It is the baseline of every table. Its one option, dropout on the pooled features, is off by
default.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.masks import Mask, masked
from idat_zoo.adapters.sites import Site, SiteShape
from idat_zoo.adapters.tensors import Created, Tensors
from idat_zoo.values import Frozen


class LinearOptions(Frozen):
    """Options of the linear probe."""

    dropout: float = Field(default=0.0, ge=0, lt=1, description="drop rate on the features")


class Linear(Adapter):
    """Head only."""

    name = "linear"
    title = "Linear probe (head only)"
    paper = ""
    year = 0
    Options = LinearOptions
    stacks_over = frozenset({"dropout"})
    options: LinearOptions
    sites: ClassVar = frozenset({Site.FEATURES})
    mergeable = True

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """No tensors."""
        return Created(trainable={})

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """Dropout on the pooled features."""
        return {"dropout": Mask(shape=(shape.outputs,), rate=self.options.dropout)}

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
        """The features after dropout."""
        return masked(y, masks, "dropout")

    def merge(self, site: Site, tensors: Tensors, frozen: Tensors) -> dict[str, Tensor]:
        """The frozen tensors as they are."""
        return dict(frozen)
