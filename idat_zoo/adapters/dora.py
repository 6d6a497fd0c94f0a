"""DoRA on linear layers, by default q and v: LoRA with separately trained lengths of the rows.

Liu et al., arXiv:2402.09353: W becomes m (W + s B A) / |W + s B A|, row by row. The lengths m start
as those of W's rows, A Kaiming-uniform (a = sqrt 5), B zero, so training starts from the frozen
network. The length in the denominator is taken as a constant in the backward pass, as in the paper.
A layer has R (inputs + outputs) + outputs parameters, 4 L D R + 2 L D in all by default. The bias
is not changed.

Source: PEFT 0.21.2, `tuners/lora/dora.py`. Dropout, off by default, replaces x by x' for the whole
adapted weight, its frozen part included, but not in the frozen layer's own output:
y + (m / |..| - 1) W x' + m / |..| s B A x'. Ours differs in `scale`, which is s itself, where PEFT
divides an alpha by R.
"""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.layers import Layer, LayersAdapter
from idat_zoo.adapters.masks import Mask
from idat_zoo.adapters.sites import Site, SiteShape
from idat_zoo.adapters.tensors import Tensors, kaiming_uniform
from idat_zoo.option_words import OnLayers


class DoRAOptions(OnLayers):
    """Options of DoRA."""

    rank: int = Field(default=8, ge=1, le=65536, description="rank R of each update")
    scale: float = Field(default=1.0, gt=0, description="factor on B A")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="drop rate on the input")


class DoRA(LayersAdapter):
    """Low-rank updates and row lengths of linear layers, by default each block's q and v."""

    name = "dora"
    title = "DoRA"
    paper = "arXiv:2402.09353"
    year = 2024
    Options = DoRAOptions
    stacks_over = frozenset({"rank", "scale", "dropout"})
    options: DoRAOptions

    @property
    def constants(self) -> dict[str, float]:
        """The factor on B A."""
        return {"scale": self.options.scale}

    def start(self, layer: Layer, generator: torch.Generator) -> dict[str, Tensor]:
        """A Kaiming-uniform, B zero, m the lengths of the frozen rows."""
        return {
            "down.weight": kaiming_uniform(self.options.rank, layer.inputs, generator=generator),
            "up.weight": torch.zeros(layer.outputs, self.options.rank),
            "magnitude": layer.frozen()["weight"].norm(dim=1).float(),
        }

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """Dropout on the input of all layers."""
        inputs = (shape.tokens, shape.inputs)
        return {"dropout": Mask(shape=inputs, rate=self.options.dropout)}

    def change(
        self, tensors: Tensors, x: Tensor, y: Tensor, frozen: Tensors, masks: Tensors
    ) -> Tensor:
        """The adapted output: y, with the part that depends on x rescaled row by row."""
        weight, bias = frozen["weight"], frozen.get("bias")
        up = tensors["scale"] * tensors["up.weight"]
        with torch.no_grad():
            length = (weight.to(up.dtype) + up @ tensors["down.weight"]).norm(dim=1)
        ratio = tensors["magnitude"] / length
        base = y if bias is None else y - bias
        if "dropout" in masks:
            base = F.linear(x, weight)
        update = F.linear(F.linear(x, tensors["down.weight"]), up)
        moved: Tensor = (ratio - 1) * base + ratio * update
        return y + moved.to(y.dtype)
