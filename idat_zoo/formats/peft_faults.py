"""The faults of an adapter that PEFT wrote: why it is not the same function on our backbone.

Shape letters: D width, R rank, K classes.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.peft import Peft
from idat_zoo.adapters.peft_targets import Noted, PeftConfig, Update
from idat_zoo.backbones.pinned import weights_repo
from idat_zoo.formats.peft_folder import CONFIG_FILE, PREFIX
from idat_zoo.formats.peft_modules import Place, adapted_class, targets
from idat_zoo.formats.peft_tuners import Shape, expected, repeated
from idat_zoo.recipe import Backbone, Task

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
UPDATED = re.compile(re.escape(PREFIX) + r"(.+)\.lora_[AB]\.weight")
NUMBER = re.compile(r"\d{1,4}")
WITHIN = re.compile(r"^(?:layers\.\d+\.)?blocks\.\d+\.")


def names_amiss(
    config: PeftConfig,
    updates: Mapping[str, Update],
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Place],
    head: str,
    backbone: Backbone,
) -> Iterator[str]:
    """Tensors of a LoRA that have no place in ours, and tensors that are missing."""
    left = tensors.keys() - set(head_names(head))
    left -= {name for module in updates for name in lora_names(module)}
    held = {found[1] for name in left if (found := UPDATED.fullmatch(name))}
    alike = re.compile(targets(list(own)))
    beyond = {name for name in held - own.keys() if alike.fullmatch(name) and _number(name)}
    unmeant = held & own.keys()
    others = sorted({WITHIN.sub("", name) for name in held - unmeant - beyond})
    strange = sorted(name for name in left if not UPDATED.fullmatch(name))
    if others:
        yield f"it updates {', '.join(first_few(others))}; only {_layers(own)} has a place here"
    if unmeant:
        yield f"it updates {_where(unmeant)}, which {config.targets} does not mean"
    if beyond:
        blocks = len({place.block for place in own.values()})
        yield f"it updates {_where(beyond)}; backbone '{backbone.name}' has {blocks} blocks"
    if strange:
        yield f"no place for the tensors {', '.join(first_few(strange))}"
    meant = [name for name in own if name in updates]
    lacking = [name for name in meant if not tensors.keys() & {*lora_names(name)}]
    if lacking:
        yield f"no LoRA on {_where(lacking)}, which {config.targets} means"
    for name in meant:
        if name not in lacking:
            yield from (f"no {each}" for each in lora_names(name) if each not in tensors)
    yield from heads_amiss(tensors, head_names(head))


def heads_amiss(tensors: Mapping[str, Tensor], head: tuple[str, str]) -> Iterator[str]:
    """Tensors of the classifier that are missing."""
    for name in head:
        if name not in tensors:
            module = name.removeprefix(PREFIX).rpartition(".")[0]
            yield f"no {name}: train with modules_to_save=['{module}']"


def networks_amiss(config: Noted, vit: nn.Module, backbone: Backbone) -> Iterator[str]:
    """Other networks and weights than the backbone's, if PEFT or our export noted them."""
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


def lora_amiss(
    updates: Mapping[str, Update],
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Place],
    head: tuple[str, str],
    body: Any,  # timm types what networks hold as mere modules
    task: Task,
) -> Iterator[str]:
    """Tensors of a LoRA whose type or shape does not fit the backbone, the task and the ranks."""
    shapes = _head_shapes(head, body, task)
    for name, place in own.items():
        if name in updates:
            rank, module = updates[name].rank, place.module
            both = (rank, module.in_features), (module.out_features, rank)
            shapes |= {n: Shape(one, True) for n, one in zip(lora_names(name), both, strict=True)}
    yield from _values_amiss(shapes, tensors)


def tensors_amiss(
    adapter: Peft,
    anatomy: Anatomy,
    tensors: Mapping[str, Tensor],
    head: tuple[str, str],
    task: Task,
) -> Iterator[str]:
    """Tensors of a tuner that have no place, are missing, or do not fit PEFT's own modules."""
    shapes, again = expected(adapter, anatomy), repeated(adapter, anatomy)
    strange = sorted(tensors.keys() - shapes.keys() - again.keys() - {*head})
    if strange:
        yield f"no place for the tensors {', '.join(first_few(strange))}"
    yield from first_few(f"no {name}" for name in shapes if name not in tensors)
    yield from first_few(_values_amiss(shapes | _head_shapes(head, anatomy.body, task), tensors))
    yield from first_few(
        f"{name} is another than {first}, which PEFT shares with it"
        for name, first in again.items()
        if name in tensors and first in tensors and not torch.equal(tensors[name], tensors[first])
    )


def _values_amiss(shapes: Mapping[str, Shape], tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Tensors that do not have these types and shapes, or hold values that are not finite."""
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


def _head_shapes(head: tuple[str, str], body: Any, task: Task) -> dict[str, Shape]:
    shapes = (task.num_classes, body.head_hidden_size), (task.num_classes,)
    return {name: Shape(shape, True) for name, shape in zip(head, shapes, strict=True)}


def first_few(told: Iterable[str]) -> list[str]:
    """The first four faults and how many more there are; a wrong backbone gives very many."""
    told = list(told)
    return told[:4] + ([f"and {len(told) - 4} more"] if len(told) > 4 else [])


def _number(name: str) -> tuple[int, ...]:
    """The numbers in a layer's name: that of its stage, if it has one, and that of its block."""
    return tuple(int(part) for part in name.split(".") if NUMBER.fullmatch(part))


def _where(names: Iterable[str]) -> str:
    """The names of layers within their blocks, with the numbers of these blocks, as a text."""
    blocks: dict[str, list[str]] = {}
    for name in sorted(names, key=_number):
        blocks.setdefault(WITHIN.sub("", name), []).append(".".join(map(str, _number(name))))
    return " and ".join(
        f"{layer} of block{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
        for layer, numbers in blocks.items()
    )


def _layers(own: Iterable[str]) -> str:
    """The names within a block of the layers that our LoRA updates, as a text."""
    return " or ".join(dict.fromkeys(WITHIN.sub("", name) for name in own))


def head_names(name: str) -> tuple[str, str]:
    """What PEFT's file calls the weight and bias of a classifier."""
    return f"{PREFIX}{name}.weight", f"{PREFIX}{name}.bias"


def lora_names(module: str) -> tuple[str, str]:
    """What PEFT's file calls LoRA's A and B of a module."""
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"
