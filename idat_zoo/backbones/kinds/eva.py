"""timm's Eva: EVA-02, DINOv3, PE and other transformers whose queries and keys are rotated."""

from typing import Any, ClassVar

from timm.models.eva import Eva as TimmEva
from timm.models.eva import EvaBlock, EvaBlockPostNorm
from torch import Tensor

from idat_zoo.backbones.kinds.base import (
    Branch,
    Context,
    Kind,
    attention_and_mlp,
    with_identity_rows,
)


class Eva(Kind):
    """A transformer with rotary positions; the context is the rotations `[N, 2C]`, or none.

    Where each block has its own (`rope_mixed`), they are `[L, M, N, 2C]`.
    """

    title = "EVA"
    timm_class = TimmEva
    block_classes: ClassVar = (EvaBlock, EvaBlockPostNorm)

    def embed(self, images: Tensor) -> tuple[Tensor, Context]:
        """Patches, prefix and positions, with the rotations."""
        x, rope = self.body._pos_embed(self.body.patch_embed(images))
        return self.body.norm_pre(x), rope

    def context_of(self, context: Context, block: int) -> Context:
        """The block's own rotations."""
        if context is None or not getattr(self.body, "rope_mixed", False):
            return context
        return context[block]

    def with_prompts(self, context: Context, count: int) -> Context:
        """Rotations that leave prompts unrotated."""
        return None if context is None else with_identity_rows(context, count)

    def block_branches(self, block: Any) -> tuple[Branch, ...]:
        """Attention and MLP."""
        return attention_and_mlp(
            block,
            attend=lambda h, rope: block.attn(h, rope=rope),
            norm_last=isinstance(block, EvaBlockPostNorm),
        )
