"""A frozen linear layer with low-rank updates of its rows, as one matrix product.

With W + B A in place of W, the forward pass costs no more than that of the frozen layer, and the
backward pass multiplies the gradient by W + B A once. The gradients of A and B take thin products,
whose inner size is R; the gradient of W itself, which autograd would compute, is never needed.

Shape letters: R rank, O outputs of the layer, o outputs that an update covers, I inputs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RowsUpdate:
    """An update B A of the rows of a weight `[O, I]` from `start` on: `up` is B, `down` is A.

    `up` is `[o, R]` and `down` `[R, I]`.
    """

    start: int
    up: Tensor
    down: Tensor


def updated_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, updates: Sequence[RowsUpdate]
) -> Tensor:
    """x (W + B A)^T + b, `[.., O]`, for x `[.., I]`; W and b get no gradient.

    The updates are in the order of their rows, which do not overlap.
    """
    starts = tuple(own.start for own in updates)
    factors = [own.up for own in updates] + [own.down for own in updates]
    y: Tensor = _UpdatedLinear.apply(x, weight, bias, starts, *factors)
    return y


def _updated(
    weight: Tensor, starts: Sequence[int], ups: Sequence[Tensor], downs: Sequence[Tensor]
) -> Tensor:
    """W + B A."""
    return torch.cat(list(_pieces(weight, starts, ups, downs)))


def _pieces(
    weight: Tensor, starts: Sequence[int], ups: Sequence[Tensor], downs: Sequence[Tensor]
) -> Iterator[Tensor]:
    done = 0
    for start, up, down in zip(starts, ups, downs, strict=True):
        end = start + up.shape[0]
        yield weight[done:start]
        yield torch.addmm(weight[start:end], up, down)
        done = end
    yield weight[done:]


class _UpdatedLinear(torch.autograd.Function):
    """The layer with a backward pass of thin products."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, starts: tuple[int, ...], *factors: Tensor
    ) -> Tensor:
        half = len(starts)
        return F.linear(x, _updated(weight, starts, factors[:half], factors[half:]), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, ctx.starts, *factors = inputs
        ctx.save_for_backward(x, weight, *factors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, *factors = ctx.saved_tensors
        half = len(ctx.starts)
        ups, downs = factors[:half], factors[half:]
        to_x = grad @ _updated(weight, ctx.starts, ups, downs) if ctx.needs_input_grad[0] else None
        rows, x = grad.flatten(0, -2), x.flatten(0, -2)
        ranks = [down.shape[0] for down in downs]
        hidden = (x @ torch.cat(downs).mT).split(ranks, dim=-1)
        own = [rows[:, k : k + up.shape[0]] for k, up in zip(ctx.starts, ups, strict=True)]
        to_ups = [part.mT @ inner for part, inner in zip(own, hidden, strict=True)]
        to_hidden = torch.cat([part @ up for part, up in zip(own, ups, strict=True)], dim=-1)
        return to_x, None, None, None, *to_ups, *(to_hidden.mT @ x).split(ranks)
