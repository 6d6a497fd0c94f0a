"""VeRA and PVeRA on linear layers, by default q and v: random projections that all layers share.

**VeRA.** Kopiczko et al., arXiv:2310.11454: W becomes W + diag(b) B diag(d) A. A and B are random,
frozen and the same for all layers, which take as many of A's columns and B's rows as they have
inputs and outputs; b and d are trained. A and B are Kaiming-uniform (gain sqrt 2) of the widest
layer's sizes, so their values depend on which layers are adapted. b is zero and d 0.1: training
starts from the frozen network. A layer has R + outputs numbers: 2 L (R + D) in all by default.

**PVeRA.** Fillioux et al., arXiv:2512.07703: A and d have twice as many rows. The first half gives
the means of R hidden values, the second the logarithms of their variances. In training, hidden
values are drawn; in evaluation, and merged, they are the means. A layer has 2 R + outputs numbers.

Source: PEFT 0.21.2, `tuners/vera` and `tuners/pvera`. Ours draw A and B from the run's seed, where
PEFT's come from a key of their own, and save them with the adapter. PEFT's PVeRA, and ours, has no
loss term for the variances. Dropout, off by default, acts on x.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.layers import Layer, UpdatesAdapter
from idat_zoo.adapters.masks import Mask
from idat_zoo.adapters.sites import Site, SiteShape
from idat_zoo.adapters.tensors import Created, Tensors
from idat_zoo.option_words import OnLayers


class VeRAOptions(OnLayers):
    """Options of VeRA and PVeRA."""

    rank: int = Field(default=256, ge=1, le=65536, description="rank R of the projections")
    inner: float = Field(default=0.1, gt=0, description="what the inner scales d start at")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="drop rate on the input")


class VeRA(UpdatesAdapter):
    """Trained scales around frozen random projections, by default beside each block's q and v."""

    name = "vera"
    title = "VeRA"
    paper = "arXiv:2310.11454"
    year = 2023
    Options = VeRAOptions
    stacks_over = frozenset({"rank", "inner", "dropout", "parts"})
    options: VeRAOptions

    downs: ClassVar[tuple[str, ...]] = ("down",)
    """The projections to hidden values, by their names; each layer has scales `inner_NAME`."""

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """The trained scales of each layer, and the frozen projections."""
        layers, rank = list(self.layers(anatomy)), self.options.rank
        widest = max(layer.inputs for layer in layers)
        shapes = dict.fromkeys(self.downs, (rank, widest))
        shapes["up"] = (max(layer.outputs for layer in layers), rank)
        frozen = {f"shared.{name}": torch.empty(shape) for name, shape in shapes.items()}
        for tensor in frozen.values():
            torch.nn.init.kaiming_uniform_(tensor, generator=generator)
        return Created(trainable=super().create(anatomy, generator).trainable, frozen=frozen)

    def start(self, layer: Layer, generator: torch.Generator) -> dict[str, Tensor]:
        """d at one value, b at zero."""
        inner = torch.full((self.options.rank,), self.options.inner)
        scales = {f"inner_{name}": inner.clone() for name in self.downs}
        return {**scales, "outer": torch.zeros(layer.outputs)}

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """Dropout on the input of all layers."""
        inputs = (shape.tokens, shape.inputs)
        return {"dropout": Mask(shape=inputs, rate=self.options.dropout)}

    def hidden(self, tensors: Tensors, x: Tensor, masks: Tensors) -> Tensor:
        """diag(d) A x."""
        return project(tensors, x, "down")

    def update(self, tensors: Tensors, x: Tensor, masks: Tensors) -> Tensor:
        """diag(b) B diag(d) A x."""
        outer = tensors["outer"]
        up = outer[:, None] * tensors["up"][: len(outer)]
        return F.linear(self.hidden(tensors, x, masks), up)


class PVeRA(VeRA):
    """VeRA whose hidden values are drawn in training, with a learned mean and variance."""

    name = "pvera"
    title = "PVeRA"
    paper = "arXiv:2512.07703"
    year = 2025
    downs = ("down", "variance")

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """Dropout on the input, and noise for the hidden values of each layer."""
        noise = Mask(shape=(shape.tokens, self.options.rank), noise=True)
        return super().masks(site, shape) | {f"{part}.noise": noise for part in self.parts_at(site)}

    def hidden(self, tensors: Tensors, x: Tensor, masks: Tensors) -> Tensor:
        """The means in evaluation; in training, values drawn around them."""
        mean = super().hidden(tensors, x, masks)
        if "noise" not in masks:
            return mean
        return mean + masks["noise"] * (project(tensors, x, "variance") / 2).exp()


def project(tensors: Tensors, x: Tensor, name: str) -> Tensor:
    """The hidden values from a shared projection and the layer's own scales."""
    down = tensors[name][:, : x.shape[-1]]
    return F.linear(x, tensors[f"inner_{name}"][:, None] * down)
