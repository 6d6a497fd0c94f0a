"""A LoRA that PEFT trained on one of timm's networks, as a checkpoint of ours.

PEFT's A and B of the fused qkv are our LoRA with the same A for q, k and v, and the rows of B that
belong to each. What a column of B adds to none of them is left out, so that an adapter of ours that
was exported comes back with its own tensors; unlike ranks are padded with zeros to the largest, and
a layer that is not updated has an update of zeros. Where q, k and v are layers of their own, so are
their updates.

Where timm reads `qkv.weight` past its module, PEFT trained nothing in it, and merges something:
neither of the two is taken over.

Shape letters: D width, R rank, K classes.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from idat_zoo import files
from idat_zoo.adapters import build_adapter
from idat_zoo.adapters.peft_options import STARTS
from idat_zoo.adapters.peft_targets import PeftConfig, Update, find_updates
from idat_zoo.backbones.frozen import load_backbone, outline
from idat_zoo.backbones.kinds import candidates, kind_of, load_kind
from idat_zoo.backbones.network import build_network
from idat_zoo.backbones.pinned import weights_repo
from idat_zoo.checkpoint import write_checkpoint
from idat_zoo.errors import CheckpointError
from idat_zoo.formats.peft_lora import (
    CONFIG_FILE,
    PREFIX,
    TENSORS_FILE,
    Place,
    adapted_class,
    classifier,
    places,
    targets,
    why_not,
)
from idat_zoo.recipe import Backbone, Recipe, Scalar, Task, check_recipe, describe_faults
from idat_zoo.run_folder import recipe_hash

PICKLE_FILE = "adapter_model.bin"
SEED = 0  # nothing of an imported adapter is drawn
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
UPDATED = re.compile(re.escape(PREFIX) + r"(.+)\.lora_[AB]\.weight")
NUMBER = re.compile(r"\d{1,4}")
WITHIN = re.compile(r"^(?:layers\.\d+\.)?blocks\.\d+\.")

OTHER_FORMS = {
    "fan_in_fan_out": "frozen weights lie transposed, as in no timm ViT",
    "use_dora": "DoRA also learns a magnitude of each row",
    "lora_bias": "B has a bias of its own",
    "alora_invocation_tokens": "only some tokens are updated",
    "layer_replication": "blocks are repeated",
    "target_parameters": "bare parameters are updated",
    "trainable_token_indices": "tokens are trained",
}
"""Keys of the configuration that, when set, make something else of LoRA."""

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
"""Keys that may hold `true` or a table without making something else of it, or are looked at."""


def import_peft(
    source: Path, folder: Path, *, backbone: Backbone, task: Task, normalisation: str = "model"
) -> Recipe:
    """Write a PEFT folder's adapter as a checkpoint, and return the recipe it is given.

    That says `protocol = "imported"`: how the adapter was trained is not known.

    Raises: CheckpointError with every reason why it is not the same function in our form;
    RecipeError for an unknown normalisation; what `load_backbone` and `whole_folder` raise.
    """
    document, tensors, body = _read_config(source), _read_tensors(source), outline(backbone)
    kind = load_kind(str(kind_of(candidates(backbone), type(body))))(body)
    own, head = places(kind), classifier(body)
    reason = why_not(kind, backbone.img_size)
    if reason:
        raise CheckpointError(
            f"'{source}' cannot be imported on backbone '{backbone.name}': {reason}.",
            hint="What can be adapted there is trained with `idat train`.",
        )
    faults = list(_other_forms(document))
    updates: dict[str, Update] = {}
    try:
        config = PeftConfig.model_validate(document)
        modules = {name: isinstance(each, nn.Linear) for name, each in body.named_modules() if name}
        updates = find_updates(config, modules)
    except ValidationError as error:
        faults += describe_faults(error, where=CONFIG_FILE)
    except ValueError as error:
        faults.append(f"{CONFIG_FILE}: {error}")
    else:
        faults += _networks_amiss(config, body, backbone)
        faults += _targets_amiss(config, updates, own, backbone)
        faults += _names_amiss(config, updates, tensors, own, head, backbone)
        faults += _first(_values_amiss(updates, tensors, own, _head(head), body, task))
    if faults:
        raise CheckpointError(
            f"'{source}' cannot be imported:\n  " + "\n  ".join(faults),
            hint=f"What can be: plain LoRA on {_layers(own)} of some or all blocks, with the head "
            f'saved beside it (modules_to_save=["{head}"]).',
        )
    options, ours = _as_ours(updates, tensors, own, _head(head))
    recipe = check_recipe(
        {
            "pair": {"name": backbone.name, "student": backbone},
            "task": task,
            "adapter": {"name": "lora", "options": options},
            "distillation": "none",
            "protocol": "imported",
            "normalisation": normalisation,
        },
        where="idat import",
    )
    network = build_network(
        load_backbone(backbone),
        build_adapter(recipe.adapter),
        num_classes=task.num_classes,
        normalisation=normalisation,
        seed=SEED,
        role="student",
    )
    network.fill(ours)
    # Two adapters trained elsewhere may share all that is known of them, and are not one recipe.
    known = recipe_hash(recipe).encode() + files.dump_tensors(network.published())
    with files.whole_folder(folder) as place:
        write_checkpoint(
            place,
            network,
            recipe,
            role="student",
            recipe_hash=hashlib.sha256(known).hexdigest(),
            seed=SEED,
        )
    return recipe


def _read_config(source: Path) -> dict[str, Any]:
    path = source / CONFIG_FILE
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"'{source}' holds no {CONFIG_FILE}: not a folder that PEFT wrote."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read '{path}': {error}") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"'{path}' is not a configuration of PEFT: expected an object.")
    return document


def _read_tensors(source: Path) -> dict[str, Tensor]:
    path = source / TENSORS_FILE
    if not path.is_file() and (source / PICKLE_FILE).is_file():
        raise CheckpointError(
            f"'{source}' holds {PICKLE_FILE}, a pickle, which is not opened; {TENSORS_FILE} was "
            "expected.",
            hint="Whoever trusts it can save it anew: PeftModel's save_pretrained(DIR) writes "
            "safetensors.",
        )
    try:
        return files.parse_tensors(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read '{path}': {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(
            f"'{path}' is damaged or a pickle: {error}.", hint="Ask for a safetensors file."
        ) from None


def _other_forms(document: Mapping[str, Any]) -> Iterator[str]:
    """What makes something else of it than plain LoRA, one sentence each."""
    kind, bias = document.get("peft_type"), document.get("bias", "none")
    if kind != "LORA":
        yield f"{CONFIG_FILE}: peft_type is {kind!r}; 'LORA' was expected"
    if bias != "none":
        yield f"{CONFIG_FILE}: bias is {bias!r}: biases of the backbone are trained as well"
    start = document.get("init_lora_weights", True)
    if start not in STARTS:
        yield (
            f"{CONFIG_FILE}: init_lora_weights is {start!r}, which may change the frozen weights; "
            "PEFT can save it as a plain LoRA (path_initial_model_for_weight_conversion)"
        )
    for key, value in document.items():
        if key in OTHER_FORMS:
            if value:
                yield f"{CONFIG_FILE}: {key} is set: {OTHER_FORMS[key]}"
        elif key not in OF_NO_MATTER and (value is True or (isinstance(value, dict) and value)):
            # PEFT switches its variants of LoRA on by `use_… = true` or a table
            yield f"{CONFIG_FILE}: {key} is set, which may be another form of LoRA"


def _networks_amiss(config: PeftConfig, vit: nn.Module, backbone: Backbone) -> Iterator[str]:
    """Where it was trained on another network, as far as PEFT or our export noted on which."""
    own, noted = adapted_class(vit), config.auto_mapping
    if noted is not None and noted.model_dump() != own:
        yield (
            f"{CONFIG_FILE}: it was trained on a {noted.base_model_class} of "
            f"{noted.parent_library}; backbone '{backbone.name}' is a {own['base_model_class']} of "
            f"{own['parent_library']}"
        )
    weights, ours = config.base_model_name_or_path or "", weights_repo(backbone)
    if weights.startswith("timm/") and weights != ours:
        yield (
            f"{CONFIG_FILE}: it was trained on the weights of {weights}; those of backbone "
            f"'{backbone.name}' are {ours or backbone.weights}"
        )


def _targets_amiss(
    config: PeftConfig,
    updates: Mapping[str, Update],
    own: Mapping[str, Place],
    backbone: Backbone,
) -> Iterator[str]:
    """What the configuration adapts and we have no place for."""
    others = [name for name in updates if name not in own]
    if others:
        yield (
            f"{CONFIG_FILE}: {config.targets} means {', '.join(_first(others))}; only "
            f"{_layers(own)} has a place here"
        )
    if not updates:
        yield f"{CONFIG_FILE}: {config.targets} means no module of backbone '{backbone.name}'"


def _names_amiss(
    config: PeftConfig,
    updates: Mapping[str, Update],
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Place],
    head: str,
    backbone: Backbone,
) -> Iterator[str]:
    """Tensors that are left over, or missing: each has one place, and each place its tensor."""
    left = tensors.keys() - set(_head(head))
    left -= {name for module in updates for name in _names(module)}
    held = {found[1] for name in left if (found := UPDATED.fullmatch(name))}
    alike = re.compile(targets(list(own)))
    beyond = {name for name in held - own.keys() if alike.fullmatch(name) and _number(name)}
    unmeant = held & own.keys()
    others = sorted({WITHIN.sub("", name) for name in held - unmeant - beyond})
    strange = sorted(name for name in left if not UPDATED.fullmatch(name))
    if others:
        yield f"it updates {', '.join(_first(others))}; only {_layers(own)} has a place here"
    if unmeant:
        yield f"it updates {_where(unmeant)}, which {config.targets} does not mean"
    if beyond:
        blocks = len({place.block for place in own.values()})
        yield f"it updates {_where(beyond)}; backbone '{backbone.name}' has {blocks} blocks"
    if strange:
        yield f"no place for the tensors {', '.join(_first(strange))}"
    meant = [name for name in own if name in updates]
    lacking = [name for name in meant if not tensors.keys() & {*_names(name)}]
    if lacking:
        yield f"no LoRA on {_where(lacking)}, which {config.targets} means"
    for name in meant:
        if name not in lacking:
            yield from (f"no {each}" for each in _names(name) if each not in tensors)
    for name in _head(head):
        if name not in tensors:
            yield f"no {name}: train with modules_to_save=['{head}']"


def _first(told: Iterable[str]) -> list[str]:
    """Four of them, and how many more there are: those of a wrong backbone are very many."""
    told = list(told)
    return told[:4] + ([f"and {len(told) - 4} more"] if len(told) > 4 else [])


def _number(name: str) -> tuple[int, ...]:
    """The number of a layer's block, behind that of its stage where there are stages."""
    return tuple(int(part) for part in name.split(".") if NUMBER.fullmatch(part))


def _where(names: Iterable[str]) -> str:
    """Layers by what they are called in their blocks, with these blocks."""
    blocks: dict[str, list[str]] = {}
    for name in sorted(names, key=_number):
        blocks.setdefault(WITHIN.sub("", name), []).append(".".join(map(str, _number(name))))
    return " and ".join(
        f"{layer} of block{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
        for layer, numbers in blocks.items()
    )


def _layers(own: Iterable[str]) -> str:
    """What our LoRA updates, as it is called in a block."""
    return " or ".join(dict.fromkeys(WITHIN.sub("", name) for name in own))


def _values_amiss(
    updates: Mapping[str, Update],
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Place],
    head: tuple[str, str],
    body: Any,  # timm types what networks hold as mere modules
    task: Task,
) -> Iterator[str]:
    """Tensors of another type or shape than the backbone, the task and the ranks ask for."""
    shapes = (task.num_classes, body.head_hidden_size), (task.num_classes,)
    expected: dict[str, tuple[int, ...]] = dict(zip(head, shapes, strict=True))
    for name, place in own.items():
        if name in updates:
            rank, module = updates[name].rank, place.module
            both = (rank, module.in_features), (module.out_features, rank)
            expected |= zip(_names(name), both, strict=True)
    for name, shape in expected.items():
        tensor = tensors.get(name)
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            yield f"{name} is {list(tensor.shape)}; expected {list(shape)}"
        elif tensor.dtype not in FLOATS:
            yield f"{name} is {str(tensor.dtype).removeprefix('torch.')}; expected floats"
        elif not tensor.isfinite().all():
            yield f"{name} holds values that are not finite"


def _head(name: str) -> tuple[str, str]:
    return f"{PREFIX}{name}.weight", f"{PREFIX}{name}.bias"


def _names(module: str) -> tuple[str, str]:
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"


def _as_ours(
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
            down, up = (tensors[each].float() for each in _names(name))
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
