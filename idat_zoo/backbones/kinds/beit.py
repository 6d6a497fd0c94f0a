"""timm's Beit: BEiT and BEiT v2, whose scores have a bias by relative position."""

from typing import Any, ClassVar

import torch
from timm.models.beit import Beit as TimmBeit
from timm.models.beit import Block
from torch import Tensor

from idat_zoo.backbones.kinds.base import Branch, Context, Kind, attention_and_mlp


class Beit(Kind):
    """A transformer with relative positions; the context is the bias that blocks share, or None."""

    title = "BEiT"
    timm_class = TimmBeit
    block_classes: ClassVar = (Block,)

    @property
    def prefix(self) -> int:
        """The class token."""
        return 1

    def embed(self, images: Tensor) -> tuple[Tensor, Context]:
        """Patches, the class token and, in some networks, positions, with the shared bias."""
        body = self.body
        x = body.patch_embed(images)
        x = torch.cat((body.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        if body.pos_embed is not None:
            x = x + body.pos_embed
        return x, None if body.rel_pos_bias is None else body.rel_pos_bias()

    def block_branches(self, block: Any) -> tuple[Branch, ...]:
        """Attention and MLP."""
        return attention_and_mlp(
            block, attend=lambda h, bias: block.attn(h, shared_rel_pos_bias=bias)
        )
