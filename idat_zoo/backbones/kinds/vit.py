"""timm's VisionTransformer: ViT, DeiT-3, DINOv2, CLIP, SigLIP and similar networks.

It covers networks with or without class token, registers, LayerScale, norms of queries and keys,
SwiGLU, and any pooling.
"""

from typing import Any, ClassVar

from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor

from idat_zoo.backbones.kinds.base import Branch, Context, Kind, attention_and_mlp


class ViT(Kind):
    """A plain vision transformer."""

    title = "ViT"
    timm_class = VisionTransformer
    block_classes: ClassVar = (Block, ResPostBlock)

    @property
    def pools_first_token(self) -> bool:
        """Where the class token is pooled; a distilled network reads two tokens."""
        body = self.body
        exact = type(body) is VisionTransformer and not self.branches[-1][0].norm_last
        return exact and body.global_pool == "token" and body.attn_pool is None

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
            norm_last=isinstance(block, ResPostBlock),
        )
