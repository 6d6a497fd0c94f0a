"""iDAT's three adapters. Pairs and their losses: tests/golden/test_released_code.py."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from families import Facts, Form, Normal, through_blocks

WHY = "held to iDAT's released code in tests/golden/test_released_code.py, with pairs and losses"
UNLIKE = ({"bottleneck": 2, "scale": 0.3, "dropout": 0.1}, {"bottleneck": 5, "scale": 1.7})


def bottleneck(x: Tensor, tensors: Mapping[str, Tensor], i: int, scale: float) -> Tensor:
    down, bias, up, shift = (
        tensors[f"blocks.{i}.{name}"]
        for name in ("down.weight", "down.bias", "up.weight", "up.bias")
    )
    return scale * (F.gelu(x @ down.T + bias) @ up.T + shift)


def sequential(model: Any, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
    def block(own: Any, i: int, x: Tensor) -> Tensor:
        y = own(x)
        return y + bottleneck(y, tensors, i, 1.0)

    return through_blocks(model, images, tensors, block)


def shared_parallel(model: Any, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
    def block(own: Any, i: int, x: Tensor) -> Tensor:
        x = x + own.attn(own.norm1(x)) + bottleneck(x, tensors, i, 0.1)
        return x + own.mlp(own.norm2(x)) + bottleneck(x, tensors, i, 0.1)

    return through_blocks(model, images, tensors, block)


def beside_mlp(model: Any, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
    def block(own: Any, i: int, x: Tensor) -> Tensor:
        x = x + own.attn(own.norm1(x))
        return x + own.mlp(own.norm2(x)) + bottleneck(x, tensors, i, 0.1)

    return through_blocks(model, images, tensors, block)


def facts(form: Any, **more: Any) -> Facts:
    return Facts(
        forms=(Form(reference=form, why=WHY),),
        count=lambda s: s.L * (2 * s.D * 4 + 4 + s.D),
        published={"B": 82_992, "S": 41_520},
        initial={"blocks.*.weight": Normal(0.02), "blocks.*.bias": 0.0},
        identity=False,
        dropout={"dropout": 0.5},
        unlike=UNLIKE,
        **more,
    )


FACTS = {
    "sequential": facts(sequential),
    "shared_parallel": facts(shared_parallel, refused_by=frozenset({"convnext"})),
    "idat_adaptformer": facts(beside_mlp),
}
