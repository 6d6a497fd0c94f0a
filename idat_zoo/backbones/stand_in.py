"""A module that stands in for another until something of it is really used."""

import importlib
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any


class StandIn(ModuleType):
    """A module that imports the real module of its name for any attribute that it lacks.

    `beside` are the stand-ins that leave `sys.modules` together with this one, as they stand for
    parts of the same package. `is_package` lets modules below it be imported, by the real one.
    """

    def __init__(self, name: str, *, beside: Iterable[str] = (), is_package: bool = False) -> None:
        super().__init__(name)
        self._names, self._is_package = (name, *beside), is_package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and not (self._is_package and name == "__path__"):
            raise AttributeError(name)  # `inspect` looks for such names in every module
        take_away(self._names)
        return getattr(importlib.import_module(self.__name__), name)


def take_away(names: Iterable[str]) -> None:
    """Remove the modules of these names from `sys.modules`, if they are stand-ins."""
    for name in names:
        if isinstance(sys.modules.get(name), StandIn):
            del sys.modules[name]
