"""Adapter families. Adding one is a file and a line in `ADAPTERS`."""

import importlib
from typing import TYPE_CHECKING, cast

from idat_zoo.errors import UnknownNameError

if TYPE_CHECKING:
    from idat_zoo.adapters.base import Adapter
    from idat_zoo.recipe import AdapterChoice

ADAPTERS = {
    "sequential": "idat_zoo.adapters.idat:Sequential",
    "shared_parallel": "idat_zoo.adapters.idat:SharedParallel",
    "idat_adaptformer": "idat_zoo.adapters.idat:IdatAdaptFormer",
    "lora": "idat_zoo.adapters.lora:LoRA",
    "linear": "idat_zoo.adapters.linear:Linear",
}


def find_adapter(name: str) -> "type[Adapter]":
    """The class of a family. Raises: UnknownNameError."""
    if name not in ADAPTERS:
        raise UnknownNameError("adapter", name, ADAPTERS)
    module, _, attribute = ADAPTERS[name].partition(":")
    return cast("type[Adapter]", getattr(importlib.import_module(module), attribute))


def build_adapter(choice: "AdapterChoice") -> "Adapter":
    """The family with its options checked. Raises: UnknownNameError, RecipeError."""
    return find_adapter(choice.name)(**choice.options)
