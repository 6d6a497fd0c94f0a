"""Hydra: two low-rank branches for a linear layer, one of its input and one of its output.

arXiv:2309.06922, code extremebird/Hydra 4138457: y becomes y + s (B_p (A_p x + a_p) + b_p) + s (B_s
(A_s y + a_s) + b_s), where y = W x + b. It acts on proj and fc2, or on other `parts`. Each A is
Xavier-uniform, B and the biases are 0, so training starts from the frozen network. A layer has R
(inputs + outputs) + R + outputs parameters in the parallel branch and 2 R outputs + R + outputs in
the sequential one. The rank is 2; the authors choose s (0.1 to 4.5) and the dropout between A and B
(0 to 0.2) by task; our defaults are those of their code, 1 and 0.

It folds into W + s (W_p + W_s W) and b + s (b_p + W_s b + b_s). The authors' merge is right for
fc2, but fails for proj, where it receives the weight of fc2, of another shape.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.layers import Layer, LayersAdapter, parts_at
from idat_zoo.adapters.masks import Mask, masked
from idat_zoo.adapters.sites import Site, SiteShape
from idat_zoo.adapters.tensors import Tensors
from idat_zoo.option_words import InBlocks, Parts


class HydraOptions(InBlocks):
    """Options of Hydra."""

    rank: int = Field(default=2, ge=1, description="rank R of each branch")
    scale: float = Field(default=1.0, gt=0, description="factor s on both branches")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="drop rate on the bottlenecks")
    parts: Parts = Field(
        default="proj+fc2",
        description="layers: some of q, k, v, proj, fc1, fc2, or qkv as one",
        json_schema_extra={"form": "parts"},
    )


class Hydra(LayersAdapter):
    """Low-rank branches in parallel with a linear layer and in sequence with it."""

    name = "hydra"
    title = "Hydra"
    paper = "arXiv:2309.06922"
    year = 2023
    Options: ClassVar = HydraOptions
    stacks_over = frozenset({"rank", "scale", "dropout"})
    options: HydraOptions

    @property
    def constants(self) -> dict[str, float]:
        """The scale."""
        return {"scale": self.options.scale}

    def start(self, layer: Layer, generator: torch.Generator) -> dict[str, Tensor]:
        """A of both branches Xavier-uniform, all else 0."""
        rank = self.options.rank
        tensors: dict[str, Tensor] = {}
        for branch, inputs in (("par", layer.inputs), ("seq", layer.outputs)):
            down = torch.nn.init.xavier_uniform_(torch.empty(rank, inputs), generator=generator)
            tensors[f"{branch}.down.weight"] = down
            tensors[f"{branch}.down.bias"] = torch.zeros(rank)
            tensors[f"{branch}.up.weight"] = torch.zeros(layer.outputs, rank)
            tensors[f"{branch}.up.bias"] = torch.zeros(layer.outputs)
        return tensors

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """Dropout on each bottleneck."""
        inner = Mask(shape=(shape.tokens, self.options.rank), rate=self.options.dropout)
        parts = [part for part in parts_at(site) if part in self.parts]
        return {f"{part}.{branch}": inner for part in parts for branch in ("par", "seq")}

    def change(
        self, tensors: Tensors, x: Tensor, y: Tensor, frozen: Tensors, masks: Tensors
    ) -> Tensor:
        """y + s (B_p (A_p x + a_p) + b_p) + s (B_s (A_s y + a_s) + b_s)."""
        added = _branch("par", tensors, x, masks) + _branch("seq", tensors, y, masks)
        return y + tensors["scale"] * added


def _branch(name: str, tensors: Tensors, x: Tensor, masks: Tensors) -> Tensor:
    hidden = F.linear(x, tensors[f"{name}.down.weight"], tensors[f"{name}.down.bias"])
    hidden = masked(hidden, masks, name)
    return F.linear(hidden, tensors[f"{name}.up.weight"], tensors[f"{name}.up.bias"])
