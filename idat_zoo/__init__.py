"""idat-zoo: vision adapters trained, evaluated and published honestly.

    from idat_zoo import adapt, run, run_many, evaluate, load
    from idat_zoo.registry import get_recipe

These names are imported when first asked for, so that listing recipes never loads torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idat_zoo.adapting import adapt
    from idat_zoo.checkpoint import load
    from idat_zoo.evaluation import evaluate
    from idat_zoo.plugins import load_plugin
    from idat_zoo.runs.many import run, run_many

__all__ = ["adapt", "evaluate", "load", "load_plugin", "run", "run_many"]

_HOMES = {
    "adapt": "idat_zoo.adapting",
    "evaluate": "idat_zoo.evaluation",
    "load": "idat_zoo.checkpoint",
    "load_plugin": "idat_zoo.plugins",
    "run": "idat_zoo.runs.many",
    "run_many": "idat_zoo.runs.many",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:  # a module or one of the functions
    if name not in _HOMES:
        raise AttributeError(f"module 'idat_zoo' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
