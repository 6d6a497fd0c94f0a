"""The factors U and V that all layers share, in both families of FacT.

A layer with a side wider than D splits that side into chunks of D.

Shape letters: B batch, N tokens, D width, R rank.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.layers import Layer, UpdatesAdapter
from idat_zoo.adapters.masks import Mask, masked
from idat_zoo.adapters.sites import Site, SiteShape
from idat_zoo.adapters.tensors import Created, Tensors, kaiming_uniform
from idat_zoo.option_words import UNWRITTEN, OnLayers, Parts


class FacTOptions(OnLayers):
    """Options of FacT, tensor train."""

    rank: int = Field(default=16, ge=1, le=4096, description="rank R of all updates")
    scale: float = Field(default=1.0, gt=0, description="factor on the updates")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="drop rate before V")
    parts: Parts = Field(
        default="q+k+v+proj+fc1+fc2",
        description="layers: some of q, k, v, proj, fc1, fc2, or qkv as one",
        json_schema_extra={**UNWRITTEN, "form": "parts"},
    )


class FacT(UpdatesAdapter):
    """A family with one U and one V for all layers."""

    paper = "arXiv:2212.03145"
    year = 2022
    options: FacTOptions

    @property
    def constants(self) -> dict[str, float]:
        """The factor on the updates."""
        return {"scale": self.options.scale}

    def misfit(self, anatomy: Anatomy) -> str:
        """Refuses layers whose sizes do not go with one U and one V."""
        missing = super().misfit(anatomy)
        if missing:
            return missing
        widths = sorted({block.width for _, block in self.stands_in(anatomy)})
        if len(widths) > 1:
            return f"U and V serve all its blocks, whose widths are {', '.join(map(str, widths))}"
        for layer in self.layers(anatomy):
            less, size = sorted((layer.inputs, layer.outputs))
            if less < widths[0]:
                return f"its {layer.name} has a side of {less}, less than {widths[0]}"
            if size % widths[0]:
                return f"its {layer.name} has a side of {size}, no multiple of {widths[0]}"
        return ""

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """U as PyTorch initialises a linear layer, V zero, and the tensors of each S."""
        rank, width = self.options.rank, self.stands_in(anatomy)[0][1].width
        u = kaiming_uniform(rank, width, generator=generator)
        shared = {"shared.u": u, "shared.v": torch.zeros(width, rank)}
        return Created(trainable=shared | super().create(anatomy, generator).trainable)

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """Dropout after each layer's S."""
        wide = max(1, shape.outputs // shape.inputs)
        return {
            f"{part}.dropout": Mask(
                shape=(shape.tokens, wide if part in ("fc1", "qkv") else 1, self.options.rank),
                rate=self.options.dropout,
            )
            for part in self.parts_at(site)
        }

    @abstractmethod
    def core(self, tensors: Tensors, inputs: int) -> Tensor:
        """S `[chunks of outputs, R, chunks of inputs, R]`."""

    def update(self, tensors: Tensors, x: Tensor, masks: Tensors) -> Tensor:
        """s V S U x."""
        chunks = x.unflatten(-1, (-1, tensors["u"].shape[-1]))
        hidden, core = F.linear(chunks, tensors["u"]), self.core(tensors, chunks.shape[-2])
        hidden = masked(torch.einsum("...ib,oaib->...oa", hidden, core), masks, "dropout")
        return F.linear(hidden, tensors["scale"] * tensors["v"]).flatten(-2)


def chunks_of(layer: Layer) -> tuple[int, int]:
    """The number of chunks of D in a layer's outputs and in its inputs."""
    width = min(layer.inputs, layer.outputs)
    return layer.outputs // width, layer.inputs // width
