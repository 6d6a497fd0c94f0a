"""The micro networks as they are pretrained: a small ViT with linear heads on its tokens.

Shape letters: B batch, D width.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from idat_zoo.backbones.installed import timm
from idat_zoo.backbones.weights.formulas import COARSE, FINE
from idat_zoo.backbones.weights.labels import LABELS

ARCHITECTURE: Final = "vit_tiny_patch16_224"

GRID: Final = 6
"""Patches of 8 x 8 pixels along one side of the image."""
TOKEN_HEADS: Final = {**LABELS, "ink_map_coarse": COARSE**2, "shape_map": COARSE**2}
"""The outputs of the class token's head. The patch tokens' head gives `ink_map`."""
PATCH_CELLS: Final = (FINE // GRID) ** 2
POSITION_SIZE: Final = 1.5


class Pretrained(nn.Module):
    """A backbone with linear heads on its class token, and one on its patch tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = create_backbone(width)
        with torch.no_grad():
            self.backbone.pos_embed.copy_(sine_positions(width))
        # PyTorch's fused attention is slow backwards in bfloat16 on CPU: plain is twice as fast.
        for block in self.backbone.blocks:
            block.attn.fused_attn = False
        self.token_head = nn.Linear(width, sum(TOKEN_HEADS.values()))
        self.patch_head = nn.Linear(width, PATCH_CELLS)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """[B, 3, 48, 48] -> logits [B, bins] or [B, cells] of each label and map."""
        with torch.autocast("cpu", torch.bfloat16):
            tokens = self.backbone.forward_features(images)
            whole = self.token_head(tokens[:, 0]).float()
            parts = self.patch_head(tokens[:, 1:]).float()
        split = whole.split(list(TOKEN_HEADS.values()), dim=1)
        return {**dict(zip(TOKEN_HEADS, split, strict=True)), "ink_map": parts.flatten(1)}


def create_backbone(width: int) -> Any:
    """One of the two architectures; `Any`, as timm's modules do not type their parts."""
    return timm.create_model(
        ARCHITECTURE,
        pretrained=False,
        img_size=48,
        patch_size=8,
        embed_dim=width,
        depth=4,
        num_heads=4,
        num_classes=0,
        weight_init="jax",
    )


def sine_positions(width: int) -> Tensor:
    """Sines of the patch row and column at several wavelengths, [1, 37, D], zero for the class.

    Starting from these, and not from noise, the class token learns where things are far sooner.
    """
    turns = torch.pi / 8 * 2 ** torch.linspace(0, 2.5, width // 4)
    angle = torch.arange(GRID)[:, None] * turns
    waves = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows = waves[:, None].expand(-1, GRID, -1)
    columns = waves[None].expand(GRID, -1, -1)
    grid = torch.cat([rows, columns], dim=2).reshape(1, GRID**2, width)
    return torch.cat([torch.zeros(1, 1, width), POSITION_SIZE * grid], dim=1)
