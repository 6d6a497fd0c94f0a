"""A stand-in for torch's compiler where nothing compiles, as importing it takes two seconds.

`import timm` imports `torch._dynamo` for two things: torchvision's `ops.roi_align` takes a function
from it that it calls on the rarest of paths, and timm's `naflexvit` decorates methods with
`torch.compiler.disable`. On the meta device, torch's own kernels ask for the same decorator at
their first call. None of these compiles anything.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch._compile import _disable_dynamo  # torch's own decorator that waits until a call

from idat_zoo.backbones.stand_in import StandIn, take_away

VARIABLE = "IDAT_IMPORT_COMPILER"
"""The environment variable that, set to anything but an empty string, turns the stand-in off."""
COMPILER, PART = "torch._dynamo", "torch._dynamo.utils"


@contextmanager
def without_compiler() -> Iterator[None]:
    """Inside, what is imported or run on the meta device does not import torch's compiler.

    Afterwards nothing is left of the stand-in in `sys.modules` or in torch. A compiler that is
    imported already is used as it is, and asking the stand-in for anything else imports the real
    compiler, which takes its place.
    """
    if COMPILER in sys.modules or os.environ.get(VARIABLE):
        yield
        return
    asked: list[Callable[..., Any]] = []

    def disable(
        fn: Callable[..., Any] | None = None,
        recursive: bool = True,
        *,
        reason: str | None = None,
        wrapping: bool = True,
    ) -> Any:
        if fn is None or wrapping:
            return _disable_dynamo(fn, recursive)
        asked.append(fn)  # by `_disable_dynamo` itself at a call; it keeps the answer at `fn`
        return fn

    package = StandIn(COMPILER, beside=[PART], is_package=True)
    part = StandIn(PART, beside=[COMPILER])
    vars(package).update(disable=disable, utils=part)
    vars(part).update(is_compile_supported=_is_compile_supported)
    sys.modules |= {COMPILER: package, PART: part}
    try:
        yield
    finally:
        take_away([COMPILER, PART])
        for fn in asked:
            vars(fn).pop("__dynamo_disable", None)


def _is_compile_supported(device_type: Any) -> Any:
    """Whether torch can compile for a device, by the function of this name in `torch._dynamo`."""
    from torch._dynamo.utils import is_compile_supported

    return is_compile_supported(device_type)
