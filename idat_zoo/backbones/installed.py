"""timm as it is installed, imported without what it imports and hardly ever uses.

That is torch's compiler, and wandb wherever that is installed: hundreds of modules, of which timm
calls one function, to log the epochs of its own training script.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from idat_zoo.backbones.stand_in import StandIn, take_away
from idat_zoo.backbones.without_compiler import without_compiler

WANDB = "wandb"


@contextmanager
def _without_wandb() -> Iterator[None]:
    """Inside, `import wandb` gives a stand-in, unless wandb is imported already, or not installed.

    Whoever keeps the stand-in gets the real wandb as soon as a function of it is used.
    """
    if WANDB in sys.modules or find_spec(WANDB) is None:
        yield
        return
    sys.modules[WANDB] = StandIn(WANDB)
    try:
        yield
    finally:
        take_away([WANDB])


with without_compiler(), _without_wandb():
    import timm

__all__ = ["timm"]
