"""A trained adapter as PEFT writes it, for those who load adapters of timm's networks with `peft`.

A tuner of PEFT is written as it is. Our LoRA has that form, too: PEFT adapts timm's fused qkv with
one A and one B. Updates of q and v alone are that form with their As one above the other and their
Bs in the rows of q and v: nothing is approximated. (With the key, 3R for 2R, and B_k in the rows
between.)

    A' = [A_q; A_v]  [2R, D]      B' = [[B_q, 0], [0, 0], [0, B_v]]  [3D, 2R]      alpha' = 2R scale

Where q, k and v are layers of their own, each has its own A and B.

PEFT stands where a layer is called. Some networks read `qkv.weight` past its module (BEiT, SwinV2,
some EVA and DINOv3): there PEFT's LoRA does nothing until it is merged, and is refused here.

Shape letters: D width, R rank, K classes.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from idat_zoo import files
from idat_zoo.adapters.base import Site
from idat_zoo.adapters.layers import ALONE, ROWS
from idat_zoo.adapters.lora import LoRA
from idat_zoo.adapters.peft import all_saved
from idat_zoo.backbones.kinds.base import Kind
from idat_zoo.backbones.peft_network import PeftNetwork
from idat_zoo.backbones.pinned import weights_repo
from idat_zoo.checkpoint import Checkpoint
from idat_zoo.errors import UsageError

TENSORS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
PREFIX = "base_model.model."


@dataclass(frozen=True, kw_only=True)
class Place:
    """A linear layer that our LoRA updates: its block, and which of q, k and v it projects to."""

    block: int
    rows: tuple[str, ...]
    module: Any  # a linear layer


def places(kind: Kind) -> dict[str, Place]:
    """The layers of a backbone that our LoRA may update, by timm's names."""
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
    """Why LoRA on a backbone is another function in PEFT than here, or ''."""
    own, called = places(kind), set()
    hooks = [
        place.module.register_forward_hook(lambda module, *_: called.add(module))
        for place in own.values()
    ]
    first = next(kind.body.parameters())
    with torch.no_grad():
        kind.body(torch.zeros(1, 3, img_size, img_size, device=first.device, dtype=first.dtype))
    for hook in hooks:
        hook.remove()
    past = [name for name, place in own.items() if place.module not in called]
    if past:
        return (
            f"timm's {type(kind.body).__name__} reads the weight of {past[0]} past its module, so "
            "that an update of PEFT does nothing there until it is merged"
        )
    if not own:
        return "it has no attention with projections of q, k and v"
    return two_classifiers(kind.body)


def classifier(body: Any) -> str:  # timm types what networks hold as mere modules
    """The name of the linear layer that timm calls the classifier."""
    return str(body.pretrained_cfg.get("classifier") or "head")


def targets(names: list[str]) -> str:
    """A regular expression for modules whose names differ in numbers alone from these.

    PEFT takes names in a list for ends of names, of other modules too.
    """
    forms = (
        r"\.".join(r"\d+" if part.isdigit() else re.escape(part) for part in name.split("."))
        for name in names
    )
    return "|".join(f"^{form}$" for form in dict.fromkeys(forms))


def as_peft(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], dict[str, object]]:
    """PEFT's tensors and its configuration, of which only what is needed is written.

    Raises: UsageError for a family that PEFT has not in this form, or not on this backbone.
    """
    network, adapter = checkpoint.network, checkpoint.network.adapter
    if isinstance(network, PeftNetwork):
        return _as_it_is(network)
    if not isinstance(adapter, LoRA):
        raise UsageError(
            f"adapter '{adapter.name}' has no form in PEFT; LoRA has.",
            hint="idat_zoo.load loads every adapter.",
        )
    kind, spec = network.kind, network.backbone.spec
    reason = why_not(kind, spec.img_size) or other_parts(adapter)
    if reason:
        raise UsageError(
            f"LoRA on backbone '{spec.name}' has no form in PEFT: {reason}.",
            hint="`idat merge` makes a plain timm model of it.",
        )
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for name, place in places(kind).items():
        own, acting = network.local(place.block), [r for r in place.rows if r in adapter.parts]
        if not acting:
            continue
        ups = torch.block_diag(*(own[f"{rows}.up.weight"] for rows in acting))
        parts = dict(zip(acting, ups.chunk(len(acting)), strict=True))
        nothing = torch.zeros_like(parts[acting[0]])
        down = torch.cat([own[f"{rows}.down.weight"] for rows in acting])
        tensors[f"{PREFIX}{name}.lora_A.weight"] = down
        tensors[f"{PREFIX}{name}.lora_B.weight"] = torch.cat(
            [parts.get(rows, nothing) for rows in place.rows]
        )
        ranks[name] = len(down)
    (rank,) = set(ranks.values())
    head = classifier(kind.body)
    for name, parameter in network.head.named_parameters():
        tensors[f"{PREFIX}{head}.{name}"] = parameter
    config: dict[str, object] = {
        "peft_type": "LORA",
        "auto_mapping": adapted_class(kind.body),
        "base_model_name_or_path": weights_repo(spec) or None,
        "r": rank,
        "lora_alpha": rank * adapter.constants["scale"],
        "target_modules": targets(list(ranks)),
        "modules_to_save": [head],
    }
    return tensors, config


def _as_it_is(network: PeftNetwork) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The tensors of a tuner of PEFT, and its configuration with our head beside."""
    reason = two_classifiers(network.body)
    if reason:
        raise UsageError(
            f"adapter '{network.adapter.word}' has no form in PEFT here: {reason}.",
            hint="`idat merge` makes a plain timm model of it.",
        )
    head = classifier(network.body)
    tensors = {name: own.detach().clone() for name, own in all_saved(network.model).items()}
    for name, parameter in network.head.named_parameters():
        tensors[f"{PREFIX}{head}.{name}"] = parameter
    config: dict[str, object] = {
        "peft_type": network.adapter.tuner.upper(),
        "auto_mapping": adapted_class(network.body),
        "base_model_name_or_path": weights_repo(network.backbone.spec) or None,
        **network.adapter.fields_on(network.body),
        "modules_to_save": [head],
    }
    return tensors, config


def two_classifiers(body: Any) -> str:
    """Why a network's head has no place in PEFT, or ''."""
    named = body.pretrained_cfg.get("classifier")
    return "its classifier is two layers" if isinstance(named, tuple) else ""


def other_parts(adapter: LoRA) -> str:
    """What is updated that is not written yet, or ''."""
    others = [part for part in adapter.parts if part not in ROWS]
    return f"it also updates {' and '.join(others)}" if others else ""


def adapted_class(vit: nn.Module) -> dict[str, str]:
    """What PEFT notes of a network that is adapted."""
    return {"base_model_class": type(vit).__name__, "parent_library": type(vit).__module__}


def has_form(checkpoint: Checkpoint) -> bool:
    """Whether PEFT has an adapter in this form, on this backbone."""
    network = checkpoint.network
    if isinstance(network, PeftNetwork):
        return not two_classifiers(network.body)
    if not isinstance(network.adapter, LoRA):
        return False
    return not (
        why_not(network.kind, network.backbone.spec.img_size) or other_parts(network.adapter)
    )


def peft_files(checkpoint: Checkpoint) -> dict[str, bytes]:
    """PEFT's two files by their names. Raises: what `as_peft` raises."""
    tensors, config = as_peft(checkpoint)
    return {TENSORS_FILE: files.dump_tensors(tensors), CONFIG_FILE: files.dump_json(config)}


def write_peft(checkpoint: Checkpoint, folder: Path) -> None:
    """Write both files. Raises: what `as_peft` and `whole_folder` raise."""
    contents = peft_files(checkpoint)
    with files.whole_folder(folder) as place:
        for name, content in contents.items():
            (place / name).write_bytes(content)
