"""timm's SwinTransformer and SwinTransformerV2: attention in shifted windows, in stages."""

from typing import Any, ClassVar

from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Block
from torch import Tensor, nn

from idat_zoo.backbones.kinds.base import Branch, Context, Staged, attention_and_mlp


class Swin(Staged):
    """Stages of blocks on a grid of tokens that gets coarser and wider."""

    title = "Swin"
    timm_class: ClassVar[type[nn.Module]] = SwinTransformer
    block_classes: ClassVar[tuple[type[nn.Module], ...]] = (SwinTransformerBlock,)
    layout = "grid"
    stages = "layers"
    norm_last: ClassVar[bool] = False

    def embed(self, images: Tensor) -> tuple[Tensor, Context]:
        """Patches as a grid."""
        return self.body.patch_embed(images), None

    def block_branches(self, block: Any) -> tuple[Branch, ...]:
        """Attention in windows, and MLP."""
        return attention_and_mlp(
            block,
            attend=lambda h, context: block._attn(h),
            norm_last=self.norm_last,
            layout=self.layout,
        )


class SwinV2(Swin):
    """As Swin, with cosine attention, which is not fused, and the norm after each branch."""

    title = "SwinV2"
    timm_class = SwinTransformerV2
    block_classes: ClassVar = (SwinTransformerV2Block,)
    norm_last = True
