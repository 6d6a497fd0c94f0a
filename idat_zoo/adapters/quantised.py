"""Quantised weights of a few bits, as Bi-LoRA and Bi-AdaptFormer compute with.

Jie et al., arXiv:2307.16867, code JieShibo/PETL-ViT 026e4f1 (MIT). A full weight W is trained; the
network computes with

    Q(W) = sigma t((W - mu) / (sigma + 1e-5)) + mu

with the mean mu and the (unbiased) standard deviation sigma of the whole tensor, and t the nearest
of 2^bits levels. The levels are the medians of the cells into which they divide a standard normal
distribution, after 500 rounds from zero: ±0.674 at 1 bit, so Q(W) spreads less than W; at 8 bits
the rounds have not converged yet. As the authors do, we compute them in float64 and use them in
float32. Gradients pass t as the identity (straight-through), and also reach W through mu and sigma.
With 32 bits, Q(W) is W. Unlike theirs, ours saves W and the table, not packed bits.
"""

from functools import cache
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator
from torch import Tensor
from torch.special import ndtr, ndtri

from idat_zoo.adapters.tensors import Tensors, trunc_normal
from idat_zoo.option_words import no_bool

Bits = Annotated[Literal[1, 2, 3, 4, 5, 6, 7, 8, 32], BeforeValidator(no_bool)]
WHOLE = 32
ROUNDS = 500


def code_table(bits: int) -> dict[str, Tensor]:
    """The frozen tensors of a family with weights of few bits: thresholds and half steps.

    `thresholds` lie between the levels, `half_steps` are half the distances of the levels; both
    have 2^bits - 1 numbers. With 32 bits there are none.
    """
    return {} if bits == WHOLE else {name: t.clone() for name, t in _found(bits).items()}


@cache
def _found(bits: int) -> dict[str, Tensor]:
    levels = torch.zeros(2**bits, dtype=torch.float64, device="cpu")
    for _ in range(ROUNDS):
        thresholds = (levels[1:] + levels[:-1]) / 2
        below = torch.cat([levels.new_zeros(1), ndtr(thresholds), levels.new_ones(1)])
        levels = ndtri((below[1:] + below[:-1]) / 2)
    return {"thresholds": thresholds.float(), "half_steps": levels.float().diff() / 2}


def small_start(outputs: int, inputs: int, *, bits: int, generator: torch.Generator) -> Tensor:
    """The initial upper weight: normal of std 0.001 cut at 0.002; zero with 32 bits.

    At 1 bit, all values of Q are then about ±0.0006, so the network does not start as the frozen
    one.
    """
    if bits == WHOLE:
        return torch.zeros(outputs, inputs)
    return trunc_normal(outputs, inputs, std=0.001, cut=0.002, generator=generator)


def quantised(weight: Tensor, tensors: Tensors) -> Tensor:
    """Q(W) of a whole tensor, with the table from the tensors that `apply` receives."""
    if "thresholds" not in tensors:
        return weight
    thresholds, half_steps = tensors["thresholds"], tensors["half_steps"]
    mean, std = weight.mean(), weight.std()
    z = (weight - mean) / (std + 1e-5)
    levels = F.pad(2 * half_steps.cumsum(0), (1, 0)) - half_steps.sum()
    nearest = levels[torch.bucketize(z.detach(), thresholds)]
    return (nearest + (z - z.detach())) * std + mean
