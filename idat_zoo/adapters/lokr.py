"""LoKr on linear layers, by default q and v: a Kronecker product with a low-rank factor.

Yeh et al., LyCORIS, arXiv:2309.14859: W becomes W + s (w1 kron w2). The sizes of w1 are the smaller
divisors nearest to the square roots of outputs and inputs, those of w2 the larger: 24 by 24 and
32 by 32 where both are 768. w2 is a product of rank R, or full where R is at least half of its
longer side. w1 is zero, all else Kaiming-uniform (a = sqrt 5), so training starts from the frozen
network. A layer of D by D, of divisors d and e, has d d + 2 e R numbers.

Source: PEFT 0.21.2, `tuners/lokr`. Ours differs in `scale`, which is s itself: PEFT divides an
alpha by R even where both factors are full and R is only a large number. LyCORIS starts w2 at zero
in place of w1. PEFT's `decompose_both`, `decompose_factor` and its dropouts (of rows and of whole
layers, both 0 by default) are not taken over.
"""

import torch
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.kronecker import kron_linear, nearest_factors
from idat_zoo.adapters.layers import Layer, UpdatesAdapter
from idat_zoo.adapters.tensors import Tensors, kaiming_uniform
from idat_zoo.option_words import OnLayers


class LoKrOptions(OnLayers):
    """Options of LoKr."""

    rank: int = Field(default=8, ge=1, le=65536, description="rank R of the larger factor")
    scale: float = Field(default=1.0, gt=0, description="factor on the product")


class LoKr(UpdatesAdapter):
    """Kronecker products with a low-rank factor added to linear layers, by default q and v."""

    name = "lokr"
    title = "LoKr"
    paper = "arXiv:2309.14859"
    year = 2023
    Options = LoKrOptions
    stacks_over = frozenset({"rank", "scale", "parts"})
    options: LoKrOptions

    @property
    def constants(self) -> dict[str, float]:
        """The factor on the product."""
        return {"scale": self.options.scale}

    def start(self, layer: Layer, generator: torch.Generator) -> dict[str, Tensor]:
        """w1 zero; w2 Kaiming-uniform, full or of two factors."""
        rank = self.options.rank
        (small_out, large_out), (small_in, large_in) = (
            nearest_factors(size) for size in (layer.outputs, layer.inputs)
        )
        shapes = {"w2": (large_out, large_in)}
        if rank < max(large_out, large_in) / 2:
            shapes = {"w2.up": (large_out, rank), "w2.down": (rank, large_in)}
        drawn = {n: kaiming_uniform(*shape, generator=generator) for n, shape in shapes.items()}
        return {"w1": torch.zeros(small_out, small_in), **drawn}

    def update(self, tensors: Tensors, x: Tensor, masks: Tensors) -> Tensor:
        """s (w1 kron w2) x. In a stack one task's w2 may be full, and another's not."""
        large = [tensors["w2"]] if "w2" in tensors else []
        if "w2.up" in tensors:
            large.append(tensors["w2.up"] @ tensors["w2.down"])
        right = torch.stack(large).sum(0, keepdim=True)
        return kron_linear(x, tensors["scale"] * tensors["w1"][None], right)
