"""The kinds of backbones by name. A new one is a file here and a line in `KINDS`.

Plugins bring further kinds (`outside.py`).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from idat_zoo.outside import KINDS_GROUP, check_class, find_class, lacking, providers
from idat_zoo.recipe import Backbone

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

WHAT = "kind of backbone"
FACTS = ("title", "timm_class", "block_classes")
"""The attributes that every kind's class must define."""


def load_kind(name: str) -> "type[Kind]":
    """The class of a kind.

    Raises: UnknownNameError; UsageError where a plugin's object is not a kind.
    """
    found: type[Kind] = find_class(WHAT, name, own=KINDS, group=KINDS_GROUP)
    return found if name in KINDS else check_kind(name, found)


def check_kind(name: str, found: Any) -> "type[Kind]":
    """`found` as a kind of this name. Raises: UsageError where it is not one."""
    from idat_zoo.backbones.kinds.base import Kind

    check_class(WHAT, name, found, base=Kind, facts=FACTS)
    kind: type[Kind] = found
    return kind


def candidates(spec: Backbone) -> list[str]:
    """The kinds that a backbone may have: the one that it names, or all built-in ones.

    Raises: UnknownNameError; UsageError where the plugin that it needs is not loaded.
    """
    if spec.kind is None:
        return list(KINDS)
    if spec.plugin is not None and spec.kind not in {*KINDS, *providers(KINDS_GROUP)}:
        raise lacking(WHAT, spec.kind, spec.plugin)
    load_kind(spec.kind)
    return [spec.kind]


def kind_of(names: Iterable[str], built: "type[nn.Module]") -> str | None:
    """The one of these kinds that walks networks of this timm class, or None."""
    return next((name for name in names if issubclass(built, load_kind(name).timm_class)), None)
