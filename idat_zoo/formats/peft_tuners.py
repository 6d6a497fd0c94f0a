"""The tuner of an adapter that PEFT trained on one of timm's networks, as our family `peft`.

PEFT itself makes the modules anew from the configuration, so nothing is translated; which modules
those are is decided by PEFT's rules, and the tensors of the file must be theirs, each one.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.peft import CHOOSING, Peft, all_saved, first_name
from idat_zoo.adapters.peft_options import (
    START,
    STARTS,
    TARGETS,
    all_defaults,
    check_options,
    configure,
    known_fields,
    require_peft,
    told,
    written,
)
from idat_zoo.adapters.peft_targets import PeftConfig, find_updates
from idat_zoo.errors import RecipeError, UsageError
from idat_zoo.recipe import describe_faults
from idat_zoo.specs import BRIDGE, AdapterSpec

ABOUT = {
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "modules_to_save"),
    *("peft_type", "peft_version", "revision", "runtime_config", "task_type"),
    *("corda_config", "eva_config", "loftq_config", "lora_ga_config"),
}
"""Keys that describe a training and how it began, not the function."""


class Shape(NamedTuple):
    """The expected shape of a tensor of a file, and whether it holds floats or whole numbers."""

    shape: tuple[int, ...]
    floats: bool


def choice_of(document: Mapping[str, Any], anatomy: Anatomy, *, where: str) -> AdapterSpec:
    """The tuner that a configuration of PEFT means, on a network.

    Raises: RecipeError with every reason why it cannot be taken over.
    """
    tuner = str(document.get("peft_type")).lower()
    try:
        known = known_fields(tuner)
    except UsageError as error:
        raise RecipeError([f"{where}: peft_type: {error.message} {error.hint}".strip()]) from None
    faults = [
        f"{where}: {key} is set, which is not taken over" for key in _set_beside(document, tuner)
    ]
    options = {key: own for key, own in document.items() if key in known and own is not None}
    if options.get(START) in STARTS:
        del options[START]  # the tensors are there already
    chosen = {key: own for key, own in options.items() if key in CHOOSING}
    others = {key: own for key, own in options.items() if key not in CHOOSING}
    try:
        meant = _targets(chosen, anatomy.body)
        check_options(tuner, options, where=where)
    except ValidationError as error:
        raise RecipeError(faults + describe_faults(error, where=where)) from None
    except RecipeError as error:
        raise RecipeError(faults + list(error.faults)) from None
    except ValueError as error:
        raise RecipeError([*faults, f"{where}: {told(error)}"]) from None
    if faults:
        raise RecipeError(faults)
    for targets in ({}, chosen, {TARGETS: meant}):  # in as few words as say it
        own = written(tuner, check_options(tuner, others | targets, where=where))
        choice = _checked({"tuner": tuner, **own}, where=where)
        adapter = Peft(**choice.options)
        with suppress(UsageError):
            if adapter.targets(anatomy.body) == meant:
                break
    configure(tuner, adapter.fields_on(anatomy.body))
    return choice


def expected(adapter: Peft, anatomy: Anatomy) -> dict[str, Shape]:
    """The shape of every tensor of PEFT's file by name, without the head's."""
    found = all_saved(adapter.try_out(anatomy))
    return {
        name: Shape(tuple(own.shape), own.is_floating_point())
        for name, own in found.items()
        if first_name(own, found) == name
    }


def repeated(adapter: Peft, anatomy: Anatomy) -> dict[str, str]:
    """Further names under which a file may repeat a tensor, each with the tensor's first name."""
    found = all_saved(adapter.try_out(anatomy))
    return {name: first for name, own in found.items() if (first := first_name(own, found)) != name}


def unchecked(document: Mapping[str, Any], choice: AdapterSpec, normalisation: str) -> list[str]:
    """What could not be checked of an adapter that was trained elsewhere, as texts."""
    weights = str(document.get("base_model_name_or_path") or "")
    notes = []
    if not weights.startswith("timm/"):
        notes.append("whether it was trained on these weights of the backbone: PEFT notes none")
    if document.get("auto_mapping") is None:
        notes.append("whether it was trained on this class of network: PEFT noted none")
    notes.append(f"how its images were normalised (taken: normalisation={normalisation})")
    notes.append("the order of its classes (taken: the task's)")
    if choice.name == BRIDGE:
        here, there = require_peft().__version__, document.get("peft_version")
        if there != here:
            notes.append(
                f"whether PEFT {there or '(of an unknown version)'} computed what {here} does"
            )
        if document.get("save_projection") is False:
            notes.append("its projections, which were not saved: they are drawn anew by their seed")
    return notes


def _set_beside(document: Mapping[str, Any], tuner: str) -> Iterator[str]:
    """Keys that are not options of ours, and whose values differ from PEFT's defaults."""
    known, defaults = known_fields(tuner), all_defaults(tuner)
    for key, value in document.items():
        if key in known or key in ABOUT or value in (None, False, "", [], {}):
            continue
        if key in defaults:
            if value != defaults[key]:
                yield key
        elif value is True or isinstance(value, dict):  # PEFT switches its variants on so
            yield key


def _targets(chosen: Mapping[str, Any], body: nn.Module) -> list[str]:
    """The modules that PEFT adapts. Raises: ValidationError, ValueError."""
    modules = {name: isinstance(own, nn.Linear) for name, own in body.named_modules() if name}
    config = PeftConfig.model_validate(dict(chosen))
    found = list(find_updates(config, modules))
    if not found:
        raise ValueError(f"{config.targets} means no module of the backbone")
    return found


def _checked(options: Mapping[str, Any], *, where: str) -> AdapterSpec:
    try:
        return AdapterSpec.model_validate({"name": BRIDGE, "options": dict(options)})
    except ValidationError as error:
        raise RecipeError(describe_faults(error, where=where)) from None


def as_floats(tensor: Tensor) -> Tensor:
    """Half-precision tensors become float32, as PEFT loads them; whole numbers stay."""
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor
