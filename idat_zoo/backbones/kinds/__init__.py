"""Kinds of backbones. Adding one is a file and a line in `KINDS`."""

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from torch import nn

    from idat_zoo.backbones.kinds.base import Kind

KINDS = {
    "vit": "idat_zoo.backbones.kinds.vit:ViT",
    "eva": "idat_zoo.backbones.kinds.eva:Eva",
    "beit": "idat_zoo.backbones.kinds.beit:Beit",
    "swin": "idat_zoo.backbones.kinds.swin:Swin",
    "swinv2": "idat_zoo.backbones.kinds.swin:SwinV2",
    "convnext": "idat_zoo.backbones.kinds.convnext:ConvNeXt",
}


def load_kind(name: str) -> "type[Kind]":
    """The class of a kind."""
    module, _, attribute = KINDS[name].partition(":")
    return cast("type[Kind]", getattr(importlib.import_module(module), attribute))


def kind_of(built: "type[nn.Module]") -> str | None:
    """The name of the kind that walks networks of one of timm's classes, if there is one."""
    return next((name for name in KINDS if issubclass(built, load_kind(name).timm_class)), None)
