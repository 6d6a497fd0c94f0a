"""MLAE on linear layers, by default q and v: LoRA as experts of rank one, some masked in training.

Wang et al., arXiv:2405.18897: W becomes W + sum_i g_i b_i a_i^T over R experts, with a factor g_i
that is trained, too. In each step of training dropout acts on the factors: a layer's expert is
there for all images and tokens of the batch, or for none. All a_i are Kaiming-uniform (a = sqrt 5),
all b_i zero and all g_i `factor`, so training starts from the frozen network. A layer has
R (inputs + outputs + 1) numbers: 4 L D R + 2 L R in all by default.

Source: jie040109/MLAE 7452aa4, `mlae.py`, which has the layer alone: where it stands is our choice,
as is the drop rate of 0.5 (their class has 0 until told). A second dropout of theirs, on x, is not
taken over.
"""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.layers import Layer, UpdatesAdapter
from idat_zoo.adapters.masks import Mask, masked
from idat_zoo.adapters.sites import Site, SiteShape
from idat_zoo.adapters.tensors import Tensors, kaiming_uniform
from idat_zoo.option_words import OnLayers


class MLAEOptions(OnLayers):
    """Options of MLAE."""

    rank: int = Field(default=8, ge=1, le=65536, description="how many experts R a layer has")
    factor: float = Field(default=1.0, gt=0, description="what each expert's factor starts at")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="drop rate of experts")


class MLAE(UpdatesAdapter):
    """Experts of rank one with trained factors, masked in training, by default on q and v."""

    name = "mlae"
    title = "MLAE"
    paper = "arXiv:2405.18897"
    year = 2024
    Options = MLAEOptions
    stacks_over = frozenset({"rank", "factor", "dropout", "parts"})
    options: MLAEOptions

    @property
    def lives_within(self) -> int:  # type: ignore[override]
        """Steps after which each expert was active twice, except with probability 10^-9.

        Its b learns in the first of the two, its a and its factor in the second.
        """
        steps, rate, experts = 2, self.options.dropout, self.options.rank
        while (rate ** (steps - 1) * (rate + steps * (1 - rate))) ** experts > 1e-9:
            steps += 1
        return steps

    def start(self, layer: Layer, generator: torch.Generator) -> dict[str, Tensor]:
        """Kaiming-uniform, zero, and all factors at one number."""
        rank = self.options.rank
        return {
            "down.weight": kaiming_uniform(rank, layer.inputs, generator=generator),
            "up.weight": torch.zeros(layer.outputs, rank),
            "factor": torch.full((rank,), self.options.factor),
        }

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """A mask of each layer's experts, drawn once for the whole batch."""
        experts = Mask(shape=(1, self.options.rank), rate=self.options.dropout, alike=True)
        return {f"{part}.dropout": experts for part in self.parts_at(site)}

    def update(self, tensors: Tensors, x: Tensor, masks: Tensors) -> Tensor:
        """sum_i g_i b_i (a_i . x)."""
        hidden = F.linear(x, tensors["down.weight"])
        return F.linear(hidden * masked(tensors["factor"], masks, "dropout"), tensors["up.weight"])
