"""LoRA on the projections of q and v: rows of timm's fused qkv, or layers of their own.

Where blocks have no attention (ConvNeXt), on the two layers of their MLP.

Hu et al., arXiv:2106.09685: q += s B_q A_q x, v += s B_v A_v x. A is Kaiming-uniform (a = sqrt 5),
B is zero, so training starts from the frozen network. Dropout acts on x, with one mask for both,
as in the authors' code. Ours differs in `scale`: it multiplies B A directly (alpha / rank is not
hidden in it). With `key` the rows of k are updated likewise.
"""

import math
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.base import (
    UNWRITTEN,
    Adapter,
    Anatomy,
    BlockAnatomy,
    Created,
    Mask,
    Site,
    SiteShape,
    Tensors,
    masked,
)
from idat_zoo.recipe import Frozen

ROWS = ("query", "key", "value")
"""What may be updated, in the order of the rows of timm's fused qkv."""
SEPARATE = {Site.Q: "query", Site.K: "key", Site.V: "value"}
"""The same where each is a layer of its own."""
LAYERS = {**SEPARATE, Site.FC1: "fc1", Site.FC2: "fc2"}
"""All layers that are updated as a whole."""


class LoRAOptions(Frozen):
    """Options of LoRA."""

    rank: int = Field(default=8, ge=1, description="rank R of each update")
    scale: float = Field(default=1.0, gt=0, description="factor on B A")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="drop rate on the input")
    key: bool = Field(
        default=False, description="also update the rows of the key", json_schema_extra=UNWRITTEN
    )


class LoRA(Adapter):
    """Low-rank updates of every block's query and value projections."""

    name = "lora"
    title = "LoRA on q and v"
    paper = "arXiv:2106.09685"
    year = 2021
    Options = LoRAOptions
    stacks_over = frozenset({"rank", "scale", "dropout", "key"})
    options: LoRAOptions
    sites: ClassVar = frozenset({Site.QKV, *LAYERS})
    mergeable = True

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows that it updates."""
        return ROWS if self.options.key else ("query", "value")

    @property
    def constants(self) -> dict[str, float]:
        """The scale."""
        return {"scale": self.options.scale}

    def sites_on(self, anatomy: Anatomy) -> frozenset[Site]:
        """The fused qkv, or q, k and v, or the MLP's layers, whichever come first."""
        choices = ({Site.QKV}, SEPARATE.keys(), {Site.FC1, Site.FC2})
        return frozenset(next((own for own in choices if own <= anatomy.sites), choices[-1]))

    def misfit(self, anatomy: Anatomy) -> str:
        """Also where the key is to be updated and there is none."""
        missing = super().misfit(anatomy)
        if not missing and self.options.key and Site.FC1 in self.sites_on(anatomy):
            return "it has no attention, and so no key to update"
        return missing

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """4 L D R numbers (6 with the key) at one width: A Kaiming-uniform, B zero."""
        rank = self.options.rank
        tensors: dict[str, Tensor] = {}
        for i, block in enumerate(anatomy.blocks):
            for name, shape in self._updates(block).items():
                down = torch.empty(rank, shape.inputs)
                torch.nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
                tensors[f"blocks.{i}.{name}.down.weight"] = down
                tensors[f"blocks.{i}.{name}.up.weight"] = torch.zeros(shape.outputs, rank)
        return Created(trainable=tensors)

    def _updates(self, block: BlockAnatomy) -> dict[str, SiteShape]:
        """What is updated in a block, with its shape."""
        fused = block.sites.get(Site.QKV)
        if fused is not None:
            return dict.fromkeys(self.rows, replace(fused, outputs=fused.outputs // 3))
        layers = SEPARATE if Site.Q in block.sites else LAYERS
        own = {name: block.sites[site] for site, name in layers.items() if site in block.sites}
        return {name: own[name] for name in own if name != "key" or self.options.key}

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """Dropout on the input of all updates."""
        inputs = (shape.tokens, shape.inputs)
        return {"dropout": Mask(shape=inputs, rate=self.options.dropout)}

    def apply(
        self, site: Site, tensors: Tensors, x: Tensor, y: Tensor, *, frozen: Tensors, masks: Tensors
    ) -> Tensor:
        """[B, N, D] and [B, N, 3D] -> [B, N, 3D]: y with the updates added; or one of the three."""
        x = masked(x, masks, "dropout")
        updates = {
            rows: F.linear(
                F.linear(x, tensors[f"{rows}.down.weight"]),
                tensors["scale"] * tensors[f"{rows}.up.weight"],
            )
            for rows in _updated(site, tensors)
        }
        return y + _joined(updates, dim=-1) if updates else y

    def merge(self, site: Site, tensors: Tensors, frozen: Tensors) -> dict[str, Tensor]:
        """The weight [3D, D] with s B A added to the rows that are updated, or one of the three."""
        updates = {
            rows: tensors["scale"] * tensors[f"{rows}.up.weight"] @ tensors[f"{rows}.down.weight"]
            for rows in _updated(site, tensors)
        }
        if not updates:
            return dict(frozen)
        return {**frozen, "weight": frozen["weight"] + _joined(updates, dim=0)}


def _updated(site: Site, tensors: Tensors) -> list[str]:
    """The rows there are tensors of: in a stack, those of any of its tasks."""
    here = [LAYERS[site]] if site in LAYERS else ROWS
    return [rows for rows in here if f"{rows}.up.weight" in tensors]


def _joined(updates: Tensors, *, dim: int) -> Tensor:
    """The updates in the order of the fused rows, with zeros for those that stay.

    One alone is that of a layer of its own.
    """
    if len(updates) == 1:
        return next(iter(updates.values()))
    nothing = torch.zeros_like(updates["query"])
    return torch.cat([updates.get(rows, nothing) for rows in ROWS], dim=dim)
