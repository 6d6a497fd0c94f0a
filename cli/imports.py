"""The garbage collector of a command, which is kept from what only imports made.

Importing torch makes a million objects that stay until the process ends. The collector would look
through them again and again while they come, and at exit once more: two seconds of a command.
"""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, nothing is collected; what is there at the end is never looked through."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


def leave_uncollected_at_exit() -> None:
    """Collect nothing when the process ends, as the system frees its memory anyway."""
    atexit.register(gc.freeze)
