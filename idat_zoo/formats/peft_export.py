"""The export of a trained adapter as a folder that PEFT loads on one of timm's networks.

A tuner of PEFT is written as it is. Families that PEFT has, too, are written in its form
(`peft_forms.py`). Any other that can be merged is converted to LoRA (`peft_convert.py`): exactly if
its change of the weights has a low rank, otherwise with the rank that is asked for.

Where a network reads a weight past its module (`peft_modules.py`), the export is refused.

Before anything is written, timm's network is given the weights that PEFT's formula makes of the
very tensors, and its logits are compared.

Shape letters: D width, R rank, K classes.
"""

import copy
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from idat_zoo import files
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.layers import ALONE, ROWS
from idat_zoo.adapters.peft import Peft, all_saved
from idat_zoo.adapters.sites import Site
from idat_zoo.backbones.network import Network
from idat_zoo.backbones.peft_network import PeftNetwork
from idat_zoo.backbones.pinned import weights_repo
from idat_zoo.checkpoint.loading import Checkpoint
from idat_zoo.errors import CheckpointError, UsageError
from idat_zoo.formats import peft_convert
from idat_zoo.formats.peft_folder import CONFIG_FILE, PREFIX, TENSORS_FILE
from idat_zoo.formats.peft_forms import FORMS, LORA, LOW_RANK, Form, Layer, Update, Written
from idat_zoo.formats.peft_modules import (
    adapted_class,
    called,
    classifier,
    read_past,
    targets,
    two_classifiers,
)
from idat_zoo.formats.timm_model import TOLERANCE, largest_difference, put_head

MERGED_HINT = "`idat merge` makes a plain timm model of it."


@dataclass(frozen=True, kw_only=True)
class InPeft:
    """An adapter in PEFT's form: its tensors, by the names in PEFT's file, and its configuration.

    `difference` is the largest difference between the logits that PEFT computes and ours, as a
    fraction of the largest logit. After a conversion, `rank` is that of the LoRA, `error` the
    fraction of the weights' change that it loses, and `left_out` the parameters that have no place
    in it.
    """

    tensors: dict[str, Tensor]
    config: dict[str, object]
    difference: float | None = None
    rank: int | None = None
    error: float | None = None
    left_out: tuple[str, ...] = ()


def as_peft(checkpoint: Checkpoint, rank: int | None = None) -> InPeft:
    """An adapter in PEFT's form; with a rank, converted to LoRA of that rank.

    Raises: UsageError for an ensemble, a family that has no form in PEFT, or none on this backbone;
    CheckpointError where PEFT would compute other logits.
    """
    network = checkpoint.single_network("PEFT has no form of several that answer together")
    reason = two_classifiers(network.body)
    if reason:
        raise _formless(network, reason)
    if rank is None and isinstance(network, PeftNetwork):
        return _as_it_is(network)
    if rank is not None or network.adapter.name in LOW_RANK:
        return _converted(network, rank)
    form = FORMS.get(network.adapter.name)
    if form is None:
        hint = (
            "--rank=8 converts it to LoRA of that rank, and tells what that leaves out."
            if network.adapter.mergeable
            else "It cannot be merged either; idat_zoo.load loads every adapter."
        )
        raise UsageError(f"adapter '{network.adapter.word}' has no form in PEFT.", hint=hint)
    layers = layers_of(network)
    reason = _why_formless(network, form, layers)
    if reason:
        raise _formless(network, reason)
    with torch.no_grad():
        return _proven(network, form, form.write(layers, network.adapter), {})


def has_form(adapter: Adapter) -> bool:
    """Whether PEFT has a tuner of the family's function; on some backbones it may still differ."""
    return isinstance(adapter, Peft) or adapter.name in {*FORMS, *LOW_RANK}


def _formless(network: Network, reason: str) -> UsageError:
    return UsageError(
        f"adapter '{network.adapter.word}' on backbone '{network.backbone.spec.name}' has no form "
        f"in PEFT: {reason}.",
        hint=MERGED_HINT,
    )


def _why_formless(network: Network, form: Form, layers: list[Layer]) -> str:
    kind = network.kind
    found = called(kind, network.backbone.spec.img_size)
    convolution = next((own.name for own in layers if own.module.weight.ndim > 2), "")
    if convolution and form is not LORA:
        return f"its {convolution} is a convolution, on which PEFT's is another function"
    return read_past(kind, [own.name for own in layers], found) or form.why_not(
        layers, network.adapter
    )


def layers_of(network: Network) -> list[Layer]:
    """The linear layers that have tensors of an adapter's parts."""
    names = {module: name for name, module in network.body.named_modules()}
    found = []
    for (block, site), module in sorted(network.kind.modules().items()):
        here = ("qkv", *ROWS) if site is Site.QKV else (ALONE.get(site, ""),)
        local = network.local(block)
        shared = {name: tensor for name, tensor in local.items() if "." not in name}
        parts = {
            part: shared | own
            for part in here
            if (
                own := {
                    n.removeprefix(f"{part}."): t
                    for n, t in local.items()
                    if n.startswith(f"{part}.")
                }
            )
        }
        if parts:
            rows = ROWS if site is Site.QKV and "qkv" not in parts else tuple(parts)
            found.append(Layer(name=names[module], module=module, rows=rows, parts=parts))
    return found


def _converted(network: Network, rank: int | None) -> InPeft:
    """LoRA of the changes that merging makes to the weights."""
    found = called(network.kind, network.backbone.spec.img_size)
    own = peft_convert.convert(network, found, rank)
    reason = read_past(network.kind, own.layers, found)
    if reason:
        raise _formless(network, reason)
    bias = any("lora_B.bias" in update.tensors for update in own.layers.values())
    written = Written(layers=own.layers, fields={"lora_bias": True} if bias else {})
    if rank is None:
        return _proven(network, LORA, written, own.modules)
    converted = _in_peft(network, LORA, written, own.modules)
    return replace(converted, rank=rank, error=own.error, left_out=own.left_out)


def _proven(
    network: Network, form: Form, written: Written, modules: dict[str, nn.Module]
) -> InPeft:
    made = _in_peft(network, form, written, modules)
    assert made.difference is not None
    if not made.difference <= TOLERANCE:
        raise CheckpointError(
            f"PEFT's logits would differ by {made.difference:.1e} of their largest; up to "
            f"{TOLERANCE:.0e} is expected. Nothing was written."
        )
    return made


def _in_peft(
    network: Network, form: Form, written: Written, modules: dict[str, nn.Module]
) -> InPeft:
    """The tensors in float32, as they are written, and the difference of PEFT's logits."""
    body = network.body
    layers = {
        name: _as_written(update, body.get_submodule(name))
        for name, update in written.layers.items()
    }
    shared = {name: tensor.detach().float() for name, tensor in written.shared.items()}
    head = classifier(body)
    names = [name for name, _ in body.named_modules()]
    config = {
        "peft_type": form.tuner.upper(),
        **_noted(network),
        **form.fields,
        **_ranks(form, layers),
        "target_modules": targets(list(layers), names),
        "modules_to_save": [head, *modules],
        **written.fields,
    }
    tensors = {
        f"{PREFIX}{name}.{own}": tensor
        for name, update in layers.items()
        for own, tensor in update.tensors.items()
    }
    tensors |= {f"base_model.{name}": tensor for name, tensor in shared.items()}
    saved = {  # PEFT takes names for ends of names, of other modules too
        name: {n: t.float() for n, t in modules.get(name, own).state_dict().items()}
        for name, own in body.named_modules()
        if name.endswith(tuple(modules))
    }
    for name, own in {head: dict(network.head.named_parameters()), **saved}.items():
        tensors |= {f"{PREFIX}{name}.{key}": tensor for key, tensor in own.items()}
    exact = copy.deepcopy(network).double()  # else rounding may be seen in deep networks
    merged = copy.deepcopy(exact.body)
    for name, update in layers.items():
        module: Any = merged.get_submodule(name)
        scale = update.alpha / update.rank if update.rank else 1.0
        weight, bias = form.weights(
            {own: tensor.double() for own, tensor in (shared | update.tensors).items()},
            module.weight.detach().flatten(1),
            None if module.bias is None else module.bias.detach(),
            config | {"scale": scale},
        )
        module.weight.copy_(weight.view_as(module.weight))
        module.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    for name, state in saved.items():
        merged.get_submodule(name).load_state_dict(state)
    put_head(merged, exact)
    return InPeft(tensors=tensors, config=config, difference=largest_difference(exact, merged))


def _as_written(update: Update, module: Any) -> Update:
    """A layer's tensors in float32, with the axes of a convolution if the layer is one."""
    axes = (None,) * (module.weight.ndim - 2)
    tensors = {
        name: (own[(..., *axes)] if name.endswith(".weight") else own).detach().float().contiguous()
        for name, own in update.tensors.items()
    }
    return update._replace(tensors=tensors)


def _noted(network: Network) -> dict[str, object]:
    return {
        "auto_mapping": adapted_class(network.body),
        "base_model_name_or_path": weights_repo(network.backbone.spec) or None,
    }


def _ranks(form: Form, layers: dict[str, Update]) -> dict[str, object]:
    """The fields of ranks and alphas: those of most layers, and patterns of the others."""
    pairs = {name: (update.rank, update.alpha) for name, update in layers.items()}
    ((rank, alpha), _), *_ = Counter(pairs.values()).most_common()
    if not rank:
        return {}
    if not form.alpha:
        return {"r": rank}
    others = {name: pair for name, pair in pairs.items() if pair != (rank, alpha)}
    fields: dict[str, object] = {"r": rank, form.alpha: alpha}
    if others:
        patterns = {re.escape(name): pair for name, pair in others.items()}
        fields["rank_pattern"] = {name: pair[0] for name, pair in patterns.items()}
        fields["alpha_pattern"] = {name: pair[1] for name, pair in patterns.items()}
    return fields


def _as_it_is(network: PeftNetwork) -> InPeft:
    """The tensors and the configuration of a tuner of PEFT, with our head added."""
    head = classifier(network.body)
    tensors = {name: own.detach().clone() for name, own in all_saved(network.model).items()}
    for name, parameter in network.head.named_parameters():
        tensors[f"{PREFIX}{head}.{name}"] = parameter
    config: dict[str, object] = {
        "peft_type": network.adapter.tuner.upper(),
        **_noted(network),
        **network.adapter.fields_on(network.body),
        "modules_to_save": [head],
    }
    return InPeft(tensors=tensors, config=config)


def peft_files(own: InPeft) -> dict[str, bytes]:
    """PEFT's two files by their names."""
    return {TENSORS_FILE: files.dump_tensors(own.tensors), CONFIG_FILE: files.dump_json(own.config)}


def write_peft(checkpoint: Checkpoint, folder: Path, rank: int | None = None) -> InPeft:
    """Write both files. Raises: what `as_peft` and `whole_folder` raise."""
    own = as_peft(checkpoint, rank)
    with files.whole_folder(folder) as place:
        for name, content in peft_files(own).items():
            (place / name).write_bytes(content)
    return own
