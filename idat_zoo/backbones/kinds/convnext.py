"""timm's ConvNeXt: ConvNeXt and ConvNeXt V2, whose blocks have one branch and no attention."""

from typing import Any, ClassVar

from timm.models.convnext import ConvNeXt as TimmConvNeXt
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from idat_zoo.backbones.kinds.base import Branch, Context, Staged, owners, same


class ConvNeXt(Staged):
    """Stages of blocks on a grid: a depthwise convolution, a norm and an MLP, in one branch."""

    title = "ConvNeXt"
    timm_class = TimmConvNeXt
    block_classes: ClassVar = (ConvNeXtBlock,)
    layout = "channels"
    stages = "stages"
    takes_img_size = False

    @property
    def patch_projection(self) -> nn.Module:
        """The first convolution of the stem."""
        projection: nn.Module = self.body.stem[0]
        return projection

    @property
    def final_norm(self) -> nn.Module:
        """The norm after the pooling, or before it."""
        norm: nn.Module = self.body.norm_pre
        if not hasattr(norm, "weight"):
            norm = self.body.head.norm
        return norm

    def embed(self, images: Tensor) -> tuple[Tensor, Context]:
        """The stem."""
        return self.body.stem(images), None

    def block_branches(self, block: Any) -> tuple[Branch, ...]:
        """One branch: convolution, norm, MLP, scale."""
        first = block.use_conv_mlp  # channels stay the first axis

        def scale(h: Tensor) -> Tensor:
            if block.gamma is None:
                return h
            scaled: Tensor = h.mul(block.gamma.reshape(1, -1, 1, 1) if first else block.gamma)
            return scaled

        def enter(x: Tensor) -> Tensor:
            h: Tensor = block.conv_dw(x)
            return h if first else h.permute(0, 2, 3, 1)

        return (
            Branch(
                norm=block.norm,
                inner=lambda h, context: block.mlp(h),
                owners=owners(block, "mlp"),
                scale=scale,
                enter=enter,
                leave=same if first else lambda h: h.permute(0, 3, 1, 2),
                layout="channels" if first else "grid",
            ),
        )

    def misfit(self) -> str:
        """Also refuses a block whose shortcut is not a plain sum."""
        shortcuts = {type(block.shortcut) for block in self.blocks} - {nn.Identity}
        return super().misfit() or ("its shortcuts are convolutions" if shortcuts else "")

    def pool(self, x: Tensor) -> Tensor:
        """A mean, and a norm."""
        features: Tensor = self.body.forward_head(self.body.norm_pre(x), pre_logits=True)
        return features
