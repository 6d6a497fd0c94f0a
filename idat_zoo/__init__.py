"""idat-zoo: vision adapters trained, evaluated and published honestly.

    from idat_zoo import run, evaluate, load
    from idat_zoo.registry import get_recipe

The three names are imported when first asked for, so that listing recipes never loads torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idat_zoo.checkpoint import load
    from idat_zoo.evaluation import evaluate
    from idat_zoo.runs import run

__all__ = ["evaluate", "load", "run"]

_HOMES = {"run": "idat_zoo.runs", "evaluate": "idat_zoo.evaluation", "load": "idat_zoo.checkpoint"}


def __getattr__(name: str) -> Any:  # a module or one of three functions
    if name not in _HOMES:
        raise AttributeError(f"module 'idat_zoo' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
