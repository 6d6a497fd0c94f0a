"""LoRA on the q and v rows of timm's fused qkv.

Hu et al., arXiv:2106.09685: q += s B_q A_q x, v += s B_v A_v x. A is Kaiming-uniform (a = sqrt 5),
B is zero, so training starts from the frozen network. Dropout acts on x, with one mask for both,
as in the authors' code. Ours differs in `scale`: it multiplies B A directly (alpha / rank is not
hidden in it). With `key` the rows of k are updated likewise.
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.base import (
    UNWRITTEN,
    Adapter,
    Anatomy,
    Created,
    Mask,
    Site,
    Tensors,
    masked,
)
from idat_zoo.recipe import Frozen

ROWS = ("query", "key", "value")
"""What may be updated, in the order of the rows of timm's fused qkv."""


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
    sites: ClassVar = frozenset({Site.QKV})
    mergeable = True

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows that it updates."""
        return ROWS if self.options.key else ("query", "value")

    @property
    def constants(self) -> dict[str, float]:
        """The scale."""
        return {"scale": self.options.scale}

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """4 L D R numbers (6 with the key): A Kaiming-uniform, B zero."""
        rank, width = self.options.rank, anatomy.embed_dim
        tensors: dict[str, Tensor] = {}
        for block in range(anatomy.depth):
            for rows in self.rows:
                down = torch.empty(rank, width)
                torch.nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
                tensors[f"blocks.{block}.{rows}.down.weight"] = down
                tensors[f"blocks.{block}.{rows}.up.weight"] = torch.zeros(width, rank)
        return Created(trainable=tensors)

    def masks(self, site: Site, anatomy: Anatomy) -> dict[str, Mask]:
        """Dropout on the input of all updates."""
        shape = (anatomy.num_tokens, anatomy.embed_dim)
        return {"dropout": Mask(shape=shape, rate=self.options.dropout)}

    def apply(
        self, site: Site, tensors: Tensors, x: Tensor, y: Tensor, *, frozen: Tensors, masks: Tensors
    ) -> Tensor:
        """[B, N, D] and [B, N, 3D] -> [B, N, 3D]: y with the updates added."""
        x = masked(x, masks, "dropout")
        return y + _joined(
            {
                rows: F.linear(
                    F.linear(x, tensors[f"{rows}.down.weight"]),
                    tensors["scale"] * tensors[f"{rows}.up.weight"],
                )
                for rows in _updated(tensors)
            },
            dim=-1,
        )

    def merge(self, site: Site, tensors: Tensors, frozen: Tensors) -> dict[str, Tensor]:
        """The qkv weight [3D, D] with s B A added to the rows that are updated."""
        update = _joined(
            {
                rows: tensors["scale"]
                * tensors[f"{rows}.up.weight"]
                @ tensors[f"{rows}.down.weight"]
                for rows in _updated(tensors)
            },
            dim=0,
        )
        return {**frozen, "weight": frozen["weight"] + update}


def _updated(tensors: Tensors) -> list[str]:
    """The rows there are tensors of: in a stack, those of any of its tasks."""
    return [rows for rows in ROWS if f"{rows}.up.weight" in tensors]


def _joined(updates: Tensors, *, dim: int) -> Tensor:
    """The updates in the order of the fused rows, with zeros for those that stay."""
    nothing = torch.zeros_like(updates["query"])
    return torch.cat([updates.get(rows, nothing) for rows in ROWS], dim=dim)
