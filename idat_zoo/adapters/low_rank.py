"""A frozen linear layer with a low-rank update of its weight, as one matrix product.

With W + B A in place of W, the forward pass costs no more than that of the frozen layer, and the
backward pass multiplies the gradient by W + B A once. The gradients of A and B take thin products,
whose inner size is R; the gradient of W itself, which autograd would compute, is never needed.

Shape letters: R rank, O outputs of the layer, I inputs.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class WeightUpdate(NamedTuple):
    """An update B A of a weight `[O, I]`: `up` is B `[O, R]`, and `down` is A `[R, I]`."""

    up: Tensor
    down: Tensor


def updated_linear(x: Tensor, weight: Tensor, bias: Tensor | None, update: WeightUpdate) -> Tensor:
    """x (W + B A)^T + b, `[.., O]`, for x `[.., I]`; W and b get no gradient."""
    y: Tensor = _UpdatedLinear.apply(x, weight, bias, *update)
    return y


class _UpdatedLinear(torch.autograd.Function):
    """The layer with a backward pass of thin products."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, up: Tensor, down: Tensor) -> Tensor:
        return F.linear(x, torch.addmm(weight, up, down), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, up, down = inputs
        ctx.save_for_backward(x, weight, up, down)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, up, down = ctx.saved_tensors
        to_x = grad @ torch.addmm(weight, up, down) if ctx.needs_input_grad[0] else None
        grad, x = grad.flatten(0, -2), x.flatten(0, -2)
        to_up = ((x @ down.mT).mT @ grad).mT  # in this order, as BLAS is slower with few columns
        return to_x, None, None, to_up, (grad @ up).mT @ x
