"""An adapter that PEFT trained on one of timm's networks, as a checkpoint of ours.

Any tuner becomes our `peft` (`peft_tuners.py`), but for a plain LoRA of q, k and v, which is our
own: PEFT's A and B of the fused qkv are our LoRA with the same A for q, k and v, and the rows of B
that belong to each. What a column of B adds to none of them is left out, so that an adapter of ours
that was exported comes back with its own tensors; unlike ranks are padded with zeros to the
largest, and a layer that is not updated has an update of zeros. Where q, k and v are layers of
their own, so are their updates.

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
from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.peft import Peft
from idat_zoo.adapters.peft_options import START, STARTS
from idat_zoo.adapters.peft_targets import Noted, PeftConfig, Update, find_updates
from idat_zoo.backbones.frozen import describe_anatomy, load_backbone
from idat_zoo.backbones.kinds import load_kind
from idat_zoo.backbones.kinds.base import Kind
from idat_zoo.backbones.network import build_network
from idat_zoo.backbones.pinned import weights_repo
from idat_zoo.checkpoint import write_checkpoint
from idat_zoo.errors import CheckpointError, RecipeError
from idat_zoo.formats.peft_export import (
    CONFIG_FILE,
    PREFIX,
    TENSORS_FILE,
    Place,
    adapted_class,
    classifier,
    places,
    targets,
    two_classifiers,
    why_not,
)
from idat_zoo.formats.peft_tuners import Shape, as_floats, choice_of, expected, repeated
from idat_zoo.recipe import (
    AdapterChoice,
    Backbone,
    Recipe,
    Scalar,
    Task,
    check_recipe,
    describe_faults,
)
from idat_zoo.recipe_hash import recipe_hash

PICKLE_FILE = "adapter_model.bin"
SEED = 0  # nothing of an imported adapter is drawn
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
UPDATED = re.compile(re.escape(PREFIX) + r"(.+)\.lora_[AB]\.weight")
NUMBER = re.compile(r"\d{1,4}")
WITHIN = re.compile(r"^(?:layers\.\d+\.)?blocks\.\d+\.")

OTHER_FORMS = {
    *("alora_invocation_tokens", "fan_in_fan_out", "layer_replication", "lora_bias"),
    *("target_parameters", "trainable_token_indices", "use_dora"),
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

    Raises: CheckpointError with every reason why it is not the same function here; UsageError where
    it needs PEFT, which is not installed; RecipeError for an unknown normalisation; what
    `load_backbone` and `whole_folder` raise.
    """
    document, tensors = read_config(source), _read_tensors(source)
    anatomy = describe_anatomy(backbone)
    kind = load_kind(anatomy.kind)(anatomy.body)
    reason = two_classifiers(kind.body)
    if reason:
        raise _cannot_stand(source, backbone, reason)
    if _becomes_ours(document, kind, backbone.img_size):
        choice, ours, faults = _as_lora(document, tensors, kind, backbone, task)
    else:
        choice, ours, faults = _as_tuner(document, tensors, anatomy, backbone, task)
        reason = "" if choice is None else build_adapter(choice).misfit(anatomy)
        if reason:
            raise _cannot_stand(source, backbone, reason)
    if faults or choice is None:
        raise CheckpointError(
            f"'{source}' cannot be imported:\n  " + "\n  ".join(faults),
            hint="What can be: any tuner of PEFT that fits timm's network, with the head saved "
            f'beside it (modules_to_save=["{classifier(kind.body)}"]).',
        )
    recipe = check_recipe(
        {
            "pair": {"name": backbone.name, "student": backbone},
            "task": task,
            "adapter": choice,
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


def _cannot_stand(source: Path, backbone: Backbone, reason: str) -> CheckpointError:
    return CheckpointError(
        f"'{source}' cannot be imported on backbone '{backbone.name}': {reason}.",
        hint="What can be adapted there is trained with `idat train`.",
    )


Taken = tuple[AdapterChoice | None, dict[str, Tensor], list[str]]
"""What an adapter is here, its tensors by our names, and what keeps it from being that."""


def _becomes_ours(document: Mapping[str, Any], kind: Kind, img_size: int) -> bool:
    """Whether it is a plain LoRA of layers that ours updates, too; what is broken is told there."""
    if not _is_plain(document) or why_not(kind, img_size):
        return False
    try:
        config = PeftConfig.model_validate(document)
        return find_updates(config, _modules(kind.body)).keys() <= places(kind).keys()
    except ValueError:
        return True


def _as_lora(
    document: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    kind: Kind,
    backbone: Backbone,
    task: Task,
) -> Taken:
    own, head = places(kind), classifier(kind.body)
    try:
        config = PeftConfig.model_validate(document)
        updates = find_updates(config, _modules(kind.body))
    except ValidationError as error:
        return None, {}, describe_faults(error, where=CONFIG_FILE)
    except ValueError as error:
        return None, {}, [f"{CONFIG_FILE}: {error}"]
    faults = [*_networks_amiss(config, kind.body, backbone)]
    if not updates:
        faults.append(f"{CONFIG_FILE}: {config.targets} means no module of '{backbone.name}'")
    faults += _names_amiss(config, updates, tensors, own, head, backbone)
    faults += _first(_lora_amiss(updates, tensors, own, _head(head), kind.body, task))
    if faults:
        return None, {}, faults
    options, ours = _lora_of(updates, tensors, own, _head(head))
    return AdapterChoice(name="lora", options={**options}), ours, []


def _as_tuner(
    document: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    anatomy: Anatomy,
    backbone: Backbone,
    task: Task,
) -> Taken:
    head = _head(classifier(anatomy.body))
    faults: list[str] = []
    try:
        faults += _networks_amiss(Noted.model_validate(document), anatomy.body, backbone)
        choice = choice_of(document, anatomy, where=CONFIG_FILE)
    except ValidationError as error:
        faults += describe_faults(error, where=CONFIG_FILE)
    except RecipeError as error:
        faults += error.faults
    else:
        adapter = build_adapter(choice)
        assert isinstance(adapter, Peft)
        if not faults and adapter.misfit(anatomy):
            return choice, {}, []
        faults += _tensors_amiss(adapter, anatomy, tensors, head, task)
        if not faults:
            ours = {f"adapter.{name}": as_floats(own) for name, own in tensors.items()}
            ours |= {f"head.{name.rpartition('.')[2]}": tensors[name].float() for name in head}
            return choice, ours, []
    return None, {}, [*faults, *_heads_amiss(tensors, head)]


def _modules(body: nn.Module) -> dict[str, bool]:
    return {name: isinstance(each, nn.Linear) for name, each in body.named_modules() if name}


def read_config(source: Path) -> dict[str, Any]:
    """What PEFT wrote of an adapter. Raises: CheckpointError."""
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


def _is_plain(document: Mapping[str, Any]) -> bool:
    """Whether it is plain LoRA alone: PEFT switches its variants on by `true` or a table."""
    if document.get("peft_type") != "LORA" or document.get("bias", "none") != "none":
        return False
    return document.get(START, True) in STARTS and not any(
        value if key in OTHER_FORMS else value is True or (isinstance(value, dict) and value)
        for key, value in document.items()
        if key not in OF_NO_MATTER
    )


def _networks_amiss(config: Noted, vit: nn.Module, backbone: Backbone) -> Iterator[str]:
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
    yield from _heads_amiss(tensors, _head(head))


def _heads_amiss(tensors: Mapping[str, Tensor], head: tuple[str, str]) -> Iterator[str]:
    """What is not there of the classifier."""
    for name in head:
        if name not in tensors:
            module = name.removeprefix(PREFIX).rpartition(".")[0]
            yield f"no {name}: train with modules_to_save=['{module}']"


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


def _lora_amiss(
    updates: Mapping[str, Update],
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Place],
    head: tuple[str, str],
    body: Any,  # timm types what networks hold as mere modules
    task: Task,
) -> Iterator[str]:
    """Tensors of another type or shape than the backbone, the task and the ranks ask for."""
    shapes = _head_shapes(head, body, task)
    for name, place in own.items():
        if name in updates:
            rank, module = updates[name].rank, place.module
            both = (rank, module.in_features), (module.out_features, rank)
            shapes |= {n: Shape(one, True) for n, one in zip(_names(name), both, strict=True)}
    yield from _values_amiss(shapes, tensors)


def _tensors_amiss(
    adapter: Peft,
    anatomy: Anatomy,
    tensors: Mapping[str, Tensor],
    head: tuple[str, str],
    task: Task,
) -> Iterator[str]:
    """Tensors that are left over, missing, or not as PEFT's modules have them."""
    shapes, again = expected(adapter, anatomy), repeated(adapter, anatomy)
    strange = sorted(tensors.keys() - shapes.keys() - again.keys() - {*head})
    if strange:
        yield f"no place for the tensors {', '.join(_first(strange))}"
    yield from _first(f"no {name}" for name in shapes if name not in tensors)
    yield from _first(_values_amiss(shapes | _head_shapes(head, anatomy.body, task), tensors))
    yield from _first(
        f"{name} is another than {first}, which PEFT shares with it"
        for name, first in again.items()
        if name in tensors and first in tensors and not torch.equal(tensors[name], tensors[first])
    )


def _head_shapes(head: tuple[str, str], body: Any, task: Task) -> dict[str, Shape]:
    shapes = (task.num_classes, body.head_hidden_size), (task.num_classes,)
    return {name: Shape(shape, True) for name, shape in zip(head, shapes, strict=True)}


def _values_amiss(shapes: Mapping[str, Shape], tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Tensors of another type or shape than these, or with values that are no numbers."""
    for name, (shape, floats) in shapes.items():
        tensor = tensors.get(name)
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            yield f"{name} is {list(tensor.shape)}; expected {list(shape)}"
        elif (tensor.dtype in FLOATS) != floats:
            asked = "floats" if floats else "whole numbers"
            yield f"{name} is {str(tensor.dtype).removeprefix('torch.')}; expected {asked}"
        elif not tensor.isfinite().all():
            yield f"{name} holds values that are not finite"


def _head(name: str) -> tuple[str, str]:
    return f"{PREFIX}{name}.weight", f"{PREFIX}{name}.bias"


def _names(module: str) -> tuple[str, str]:
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"


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
