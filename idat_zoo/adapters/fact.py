"""FacT: updates of all linear layers of all blocks through one shared U and one shared V.

Jie & Deng, arXiv:2212.03145; code JieShibo/PETL-ViT 026e4f1. A layer's output y becomes
y + s V drop(S U x): U is R by D and V is D by R, shared by all layers, S is R by R, one per layer.
fc1 widens D to 4 D: its S has 4 R outputs, and V maps each of their four chunks of R to D numbers.
fc2's input is split into four chunks of D, U maps each to R numbers, and its S has 4 R inputs.

`fact_tt` (tensor train) trains each S itself: 2 D R + 12 L R^2 parameters, R = 16. `fact_tk`
(Tucker) computes them from a cube C and columns P, S^T = sum_c C[:, :, c] P[c]: 2 D R + R^3 + 12 L
R parameters, R = 32. Of fc1's and fc2's four such matrices, column b of the j-th is column 4 b + j
of the matrix that is split into chunks, so each chunk mixes all four, as in the authors' code.

V is zero, so training starts from the frozen network; U and S are uniform within 1 / sqrt(inputs),
C and P Xavier-uniform. Each layer has its own dropout after S. The authors choose s for each task,
from 0.01 to 100, and R from 4 to 16 (Tucker: 16 or 32); s = 1 is our default. Beyond their code,
any linear layers of any blocks may be named, and the start of P depends on how many they are. In a
shared pass, Tucker needs equal R, as the place of a number in a chunk depends on it.
"""

import math

import torch
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.layers import Layer
from idat_zoo.adapters.shared_factors import FacT, FacTOptions, chunks_of
from idat_zoo.adapters.tensors import Created, Tensors, kaiming_uniform


class TuckerOptions(FacTOptions):
    """Options of FacT, Tucker."""

    rank: int = Field(default=32, ge=1, le=1024, description="rank R of all updates")


class FacTTT(FacT):
    """Updates of all linear layers through one U and one V, with a matrix for each between."""

    name = "fact_tt"
    title = "FacT, tensor train"
    Options = FacTOptions
    stacks_over = frozenset({"rank", "scale", "dropout", "parts"})

    def start(self, layer: Layer, generator: torch.Generator) -> dict[str, Tensor]:
        """S, as a linear layer starts."""
        rank, (outputs, inputs) = self.options.rank, chunks_of(layer)
        core = kaiming_uniform(outputs * rank, inputs * rank, generator=generator)
        return {"core": core.view(outputs, rank, inputs, rank)}

    def core(self, tensors: Tensors, inputs: int) -> Tensor:
        """S as it is."""
        return tensors["core"]


class FacTTK(FacT):
    """Updates of all linear layers through one U, one V and one cube."""

    name = "fact_tk"
    title = "FacT, Tucker"
    Options = TuckerOptions
    stacks_over = frozenset({"scale", "dropout", "parts"})

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """Also C and P, Xavier-uniform."""
        made, rank = super().create(anatomy, generator).trainable, self.options.rank
        columns = [tensor for name, tensor in made.items() if name.endswith(".columns")]
        bound = math.sqrt(6 / (rank + sum(own.shape[1] for own in columns)))
        for own in columns:
            own.uniform_(-bound, bound, generator=generator)
        cube = torch.nn.init.xavier_uniform_(torch.empty(rank, rank, rank), generator=generator)
        return Created(trainable={"shared.cube": cube} | made)

    def start(self, layer: Layer, generator: torch.Generator) -> dict[str, Tensor]:
        """The layer's columns of P; `create` draws their values."""
        return {"columns": torch.empty(self.options.rank, math.prod(chunks_of(layer)))}

    def core(self, tensors: Tensors, inputs: int) -> Tensor:
        """S from C and the layer's columns, in the memory order of the authors' code."""
        cores = torch.einsum("abc,ck->abk", tensors["cube"], tensors["columns"])
        rank, joined = cores.shape[0], cores.flatten(1)
        if inputs > 1:
            return joined.view(1, rank, inputs, rank)
        return joined.mT.reshape(-1, rank, 1, rank)
