"""timm's VisionTransformer: ViT, DeiT-3, DINOv2, CLIP, SigLIP and similar networks.

It covers networks with or without class token, registers, LayerScale, norms of queries and keys,
SwiGLU, and any pooling.
"""

from typing import Any, ClassVar

import torch.nn.functional as F
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor

from idat_zoo.backbones.kinds.base import Branch, Context, Kind, attention_and_mlp


class ViT(Kind):
    """A plain vision transformer."""

    title = "ViT"
    timm_class = VisionTransformer
    block_classes: ClassVar = (Block, ResPostBlock)

    @property
    def pooled_tokens(self) -> int | None:
        """One, the class token, where nothing else is pooled."""
        body, attention = self.body, self.branches[-1][0]
        exact = type(body) is VisionTransformer  # a distilled network reads two tokens
        alone = exact and body.global_pool == "token" and body.attn_pool is None
        return 1 if alone and attention.first is not None and not attention.norm_last else None

    def embed(self, images: Tensor) -> tuple[Tensor, Context]:
        """Patches, prefix and positions."""
        body = self.body
        x = body.patch_drop(body._pos_embed(body.patch_embed(images)))
        return body.norm_pre(x), None

    def block_branches(self, block: Any) -> tuple[Branch, ...]:
        """Attention and MLP."""
        return attention_and_mlp(
            block,
            attend=lambda h, context: block.attn(h),
            first=(
                (lambda h, context, count: attend_first(block.attn, h, count))
                if type(block.attn) is Attention
                else None
            ),
            norm_last=isinstance(block, ResPostBlock),
        )


def attend_first(attention: Attention, h: Tensor, count: int) -> Tensor:
    """The output of timm's attention for the first tokens alone, `[B, count, D]`, of h `[B, N, D]`.

    Every token is still a key and a value; only the queries are fewer.
    """
    batch, tokens, _ = h.shape
    heads = (attention.num_heads, attention.head_dim)
    query, key, value = attention.qkv(h).reshape(batch, tokens, 3, *heads).permute(2, 0, 3, 1, 4)
    query, key = attention.q_norm(query[:, :, :count]), attention.k_norm(key)
    x = F.scaled_dot_product_attention(query, key, value)
    x = attention.norm(x.transpose(1, 2).flatten(2))
    gate = getattr(attention, "gate", None)  # timm 1.0.23 has no gates yet
    if gate is not None:
        x = x * gate(h[:, :count]).sigmoid()
    out: Tensor = attention.proj(x)
    return out
