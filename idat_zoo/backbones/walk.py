"""The forward pass of a frozen timm ViT, with a call at every site an adapter may stand at.

Shape letters: B batch, C channels, H W image, N tokens, D width, L blocks.

timm's own `VisionTransformer.forward_features` and `forward_head`, spelled out; a test holds the
two equal for every form the registry names (class token, registers, LayerScale, qk-norm, pooling).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from idat_zoo.adapters.base import Site

At = Callable[[Site, int, Tensor, Tensor, nn.Module | None], Tensor]
"""(site, block, x, y, the frozen module that made y of x if it is one) -> what takes y's place."""


def walk(
    vit: Any,  # timm types its blocks as mere modules
    images: Float[Tensor, "B C H W"],
    at: At,
    drop_path: Float[Tensor, "L 2 B"] | None,
) -> Float[Tensor, "B D"]:
    """Pooled features. `drop_path` scales each image's branches (0: dropped)."""
    x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
    for i, block in enumerate(vit.blocks):
        x = at(Site.BLOCK_INPUT, i, x, x, None)
        h = at(Site.NORM1, i, x, block.norm1(x), block.norm1)
        branch = at(
            Site.ATTN, i, h, block.ls1(_attention(block.attn, h, partial(_within, at, i))), None
        )
        after = at(Site.AFTER_ATTN, i, x, x + _kept(branch, drop_path, i, 0), None)
        h = at(Site.NORM2, i, after, block.norm2(after), block.norm2)
        branch = at(Site.MLP, i, h, block.ls2(_mlp(block.mlp, h, partial(_within, at, i))), None)
        x = at(Site.AFTER_MLP, i, after, after + _kept(branch, drop_path, i, 1), None)
    features: Tensor = vit.forward_head(vit.norm(x), pre_logits=True)
    return at(Site.FEATURES, len(vit.blocks), features, features, None)


def _within(at: At, block: int, site: Site, x: Tensor, module: nn.Module) -> Tensor:
    """A frozen linear layer inside a block, and the site at its output."""
    return at(site, block, x, module(x), module)


def _kept(branch: Tensor, drop_path: Tensor | None, block: int, which: int) -> Tensor:
    return branch if drop_path is None else branch * drop_path[block, which, :, None, None]


Linear = Callable[[Site, Tensor, nn.Module], Tensor]


def _attention(attn: Any, x: Float[Tensor, "B N D"], linear: Linear) -> Tensor:
    B, N, _ = x.shape
    qkv = linear(Site.QKV, x, attn.qkv)
    q, k, v = qkv.reshape(B, N, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    joined = F.scaled_dot_product_attention(attn.q_norm(q), attn.k_norm(k), v)
    joined = joined.transpose(1, 2).reshape(B, N, -1)
    if hasattr(attn, "norm"):  # not in the first timm 1.0
        joined = attn.norm(joined)
    return linear(Site.PROJ, joined, attn.proj)


def _mlp(mlp: Any, x: Float[Tensor, "B N D"], linear: Linear) -> Tensor:
    hidden = mlp.act(linear(Site.FC1, x, mlp.fc1))
    return linear(Site.FC2, mlp.norm(hidden), mlp.fc2)
