"""The conversion of a plain LoRA that PEFT trained to our own family `lora`.

PEFT's A and B of the fused qkv are our LoRA with the same A for q, k and v, and the rows of B that
belong to each. What a column of B adds to none of them is left out, so that an adapter of ours that
was exported comes back with its own tensors; unlike ranks are padded with zeros to the largest, and
a layer that is not updated has an update of zeros. Where q, k and v are layers of their own, so are
their updates.

Shape letters: D width, R rank, K classes.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from idat_zoo.adapters.peft_options import START, STARTS
from idat_zoo.adapters.peft_targets import PeftConfig, Update, find_updates
from idat_zoo.backbones.kinds.base import Kind
from idat_zoo.formats.peft_faults import (
    first_few,
    head_names,
    lora_amiss,
    lora_names,
    names_amiss,
    networks_amiss,
)
from idat_zoo.formats.peft_folder import CONFIG_FILE
from idat_zoo.formats.peft_modules import Place, classifier, places, why_not
from idat_zoo.recipe import Backbone, Task, describe_faults
from idat_zoo.specs import AdapterSpec
from idat_zoo.values import Scalar

OTHER_FORMS = {
    *("alora_invocation_tokens", "fan_in_fan_out", "layer_replication", "lora_bias"),
    *("target_parameters", "trainable_token_indices", "use_dora"),
}
"""Keys of the configuration that, when set, make LoRA another function."""
OF_NO_MATTER = {
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "init_lora_weights",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "runtime_config",
    "use_rslora",
    "alpha_pattern",
    "rank_pattern",
}
"""Keys that may hold `true` or a table: they do not change the function, or are read elsewhere."""
Taken = tuple[AdapterSpec | None, dict[str, Tensor], list[str]]
"""Our choice for an adapter and its tensors by our names; faults if there is no such choice."""


def becomes_ours(document: Mapping[str, Any], kind: Kind, img_size: int) -> bool:
    """Whether it is a plain LoRA of layers that ours updates; a broken one counts as such, too."""
    if not _is_plain(document) or why_not(kind, img_size):
        return False
    try:
        config = PeftConfig.model_validate(document)
        return find_updates(config, _modules(kind.body)).keys() <= places(kind).keys()
    except ValueError:
        return True


def as_lora(
    document: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    kind: Kind,
    backbone: Backbone,
    task: Task,
) -> Taken:
    """An adapter of PEFT's as our LoRA, or every reason why it is none."""
    own, head = places(kind), classifier(kind.body)
    try:
        config = PeftConfig.model_validate(document)
        updates = find_updates(config, _modules(kind.body))
    except ValidationError as error:
        return None, {}, describe_faults(error, where=CONFIG_FILE)
    except ValueError as error:
        return None, {}, [f"{CONFIG_FILE}: {error}"]
    faults = [*networks_amiss(config, kind.body, backbone)]
    if not updates:
        faults.append(f"{CONFIG_FILE}: {config.targets} means no module of '{backbone.name}'")
    faults += names_amiss(config, updates, tensors, own, head, backbone)
    faults += first_few(lora_amiss(updates, tensors, own, head_names(head), kind.body, task))
    if faults:
        return None, {}, faults
    options, ours = _lora_of(updates, tensors, own, head_names(head))
    return AdapterSpec(name="lora", options={**options}), ours, []


def _is_plain(document: Mapping[str, Any]) -> bool:
    """Whether it is LoRA without any variant, which PEFT switches on by `true` or a table."""
    if document.get("peft_type") != "LORA" or document.get("bias", "none") != "none":
        return False
    return document.get(START, True) in STARTS and not any(
        value if key in OTHER_FORMS else value is True or (isinstance(value, dict) and value)
        for key, value in document.items()
        if key not in OF_NO_MATTER
    )


def _modules(body: nn.Module) -> dict[str, bool]:
    return {name: isinstance(each, nn.Linear) for name, each in body.named_modules() if name}


def _lora_of(
    updates: Mapping[str, Update],
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Place],
    head: tuple[str, str],
) -> tuple[dict[str, Scalar], dict[str, Tensor]]:
    """Options of our LoRA, and its tensors and the head's by the names of a checkpoint."""
    scales = {update.scale for update in updates.values()}
    scale = scales.pop() if len(scales) == 1 and min(scales) > 0 else 1.0
    parts: dict[str, tuple[Tensor, Tensor]] = {}
    for name, place in own.items():
        module = place.module
        down, up = torch.zeros(0, module.in_features), torch.zeros(module.out_features, 0)
        if name in updates:
            down, up = (tensors[each].float() for each in lora_names(name))
            if updates[name].scale != scale:
                up = updates[name].scale * up
        for rows, part in zip(place.rows, up.chunk(len(place.rows)), strict=True):
            acting = part.any(dim=0)
            parts[f"blocks.{place.block}.{rows}"] = down[acting], part[:, acting]
    rank = max(1, *(len(down) for down, _ in parts.values()))
    key = any(len(down) for name, (down, _) in parts.items() if name.endswith("key"))
    ours = {f"head.{name.rpartition('.')[2]}": tensors[name].float() for name in head}
    for name, (down, part) in parts.items():
        if key or not name.endswith("key"):
            missing = rank - len(down)
            ours[f"adapter.{name}.down.weight"] = F.pad(down, (0, 0, 0, missing))
            ours[f"adapter.{name}.up.weight"] = F.pad(part, (0, missing))
    return {"rank": rank, "scale": scale, **({"key": True} if key else {})}, ours
