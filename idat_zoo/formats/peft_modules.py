"""The modules of timm's network that PEFT would adapt: their names, and where it would do nothing.

PEFT updates a layer where it is called. Some networks read `qkv.weight` past its module (BEiT,
SwinV2, some EVA and DINOv3): there an update of PEFT does nothing until it is merged.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from idat_zoo.adapters.layers import ALONE, ROWS
from idat_zoo.adapters.sites import Site
from idat_zoo.backbones.kinds.base import Kind


@dataclass(frozen=True, kw_only=True)
class Place:
    """A linear layer that our LoRA updates: its block, and which of q, k and v it projects to."""

    block: int
    rows: tuple[str, ...]
    module: Any  # a linear layer


def places(kind: Kind) -> dict[str, Place]:
    """The projections of q, k and v of a backbone, by timm's names."""
    names = {module: name for name, module in kind.body.named_modules()}
    rows = {Site.QKV: ROWS, **{site: (name,) for site, name in ALONE.items() if name in ROWS}}
    return {
        names[module]: Place(block=block, rows=rows[site], module=module)
        for block, branches in enumerate(kind.branches)
        for branch in branches
        for site, module in branch.owners.items()
        if site in rows
    }


def why_not(kind: Kind, img_size: int) -> str:
    """Why LoRA of q, k and v is another function in PEFT than here, or ''."""
    own = places(kind)
    if not own:
        return "it has no attention with projections of q, k and v"
    return read_past(kind, own, called(kind, img_size)) or two_classifiers(kind.body)


def called(kind: Kind, img_size: int) -> set[str]:
    """The names of the modules that timm calls in a forward pass."""
    found: set[str] = set()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: found.add(name))
        for name, module in kind.body.named_modules()
    ]
    first = next(kind.body.parameters())
    with torch.no_grad():
        kind.body(torch.zeros(1, 3, img_size, img_size, device=first.device, dtype=first.dtype))
    for hook in hooks:
        hook.remove()
    return found


def read_past(kind: Kind, names: Iterable[str], found: Collection[str]) -> str:
    """Why an update of PEFT has no effect in one of these modules, or ''."""
    past = [name for name in names if name not in found]
    if not past:
        return ""
    return (
        f"timm's {type(kind.body).__name__} reads the weight of {past[0]} past its module, so "
        "that an update of PEFT does nothing there until it is merged"
    )


def classifier(body: Any) -> str:  # timm types what networks hold as mere modules
    """The name of the linear layer that timm calls the classifier."""
    return str(body.pretrained_cfg.get("classifier") or "head")


def targets(names: Collection[str], all_names: Collection[str] = ()) -> str:
    """A regular expression for these modules, and others whose names differ only in numbers.

    Where that means others of `all_names`, too, it has each name. PEFT takes names in a list for
    ends of names, of other modules too.
    """
    forms = dict.fromkeys(map(numbered, names))
    pattern = "|".join(f"^{form}$" for form in forms)
    if any(re.match(pattern, name) for name in set(all_names) - set(names)):
        return "|".join(f"^{re.escape(name)}$" for name in names)
    return pattern


def numbered(name: str) -> str:
    """A regular expression for a name in which any number may stand for each number."""
    parts = name.split(".")
    return r"\.".join(r"\d+" if part.isdigit() else re.escape(part) for part in parts)


def two_classifiers(body: Any) -> str:
    """Why a network's head has no place in PEFT, or ''."""
    named = body.pretrained_cfg.get("classifier")
    return "its classifier is two layers" if isinstance(named, tuple) else ""


def adapted_class(vit: nn.Module) -> dict[str, str]:
    """The class of a network, as PEFT writes it into a configuration (`auto_mapping`)."""
    return {"base_model_class": type(vit).__name__, "parent_library": type(vit).__module__}
