"""Kronecker products beside the MLP."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from families import Facts, Form, Normal, through_blocks

WHY = "its authors released no code"
SCALE = 0.7


def product(x: Tensor, tensors: Mapping[str, Tensor], i: int) -> Tensor:
    """Of all summed terms, and the learned residual if there is one."""
    left, right = tensors[f"blocks.{i}.left"], tensors[f"blocks.{i}.right"]
    terms = [F.linear(x, torch.kron(a, b)) for a, b in zip(left, right, strict=True)]
    gate = tensors.get(f"blocks.{i}.gate")
    return SCALE * torch.stack(terms).sum(0) + (0 if gate is None else gate * x)


def beside_mlp(model: Any, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
    def block(own: Any, i: int, x: Tensor) -> Tensor:
        x = x + own.attn(own.norm1(x))
        u = own.norm2(x)
        return x + own.mlp(u) + product(u, tensors, i)

    return through_blocks(model, images, tensors, block)


def from_stream(model: Any, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
    def block(own: Any, i: int, x: Tensor) -> Tensor:
        x = x + own.attn(own.norm1(x))
        return x + own.mlp(own.norm2(x)) + product(x, tensors, i)

    return through_blocks(model, images, tensors, block)


def forms() -> tuple[Form, ...]:
    shaped = {"rows": 3, "columns": 12, "terms": 2, "scale": SCALE}
    return (
        Form(reference=beside_mlp, options={"scale": SCALE}, why=WHY),
        Form(reference=beside_mlp, options=shaped, why=WHY),
        Form(reference=from_stream, options={"scale": SCALE, "input": "stream"}, why=WHY),
    )


def numbers(width: int) -> int:
    """Of both factors, which are of 32 by 24 at 768 and of 24 by 16 at 384."""
    return {768: 2 * 32 * 24, 384: 2 * 24 * 16}[width]


def facts(*, residual: bool) -> Facts:
    gate = {"blocks.*.gate": 0.0} if residual else {}
    return Facts(
        forms=forms(),
        count=lambda s: s.L * (numbers(s.D) + residual),
        unpublished=WHY,
        initial={"blocks.*.left": Normal(1 / 24), "blocks.*.right": 0.0, **gate},
        identity=True,
        unlike=({"terms": 1, "scale": 0.3}, {"terms": 3, "scale": 1.7}),
    )


FACTS = {"krona_b": facts(residual=False), "krona_res": facts(residual=True)}
