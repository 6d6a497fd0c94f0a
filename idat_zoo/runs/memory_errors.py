"""Readable error messages for running out of memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from idat_zoo.errors import DeviceError
from idat_zoo.recipe import Recipe


@contextmanager
def plain_memory_errors(recipe: Recipe, *, runs: int = 1) -> Iterator[None]:
    """Replace out-of-memory errors of torch and Python by one sentence with advice.

    `runs` is the number of runs that share the pass. Epochs that were saved stay on disk.

    Raises: DeviceError in place of the original error.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        own = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not own and "can't allocate memory" not in str(error):
            raise
        smaller = f"batch_size={recipe.batch_size // 2}"
        if recipe.batch_size == 1:
            smaller = "a smaller --pair, or --device cpu"
        if runs > 1:
            smaller = f"--stack {runs // 2}, or {smaller}"
        shared = f" and {runs} runs in one pass" if runs > 1 else ""
        raise DeviceError(
            f"out of memory with batch_size = {recipe.batch_size}{shared}.",
            hint=f"Try {smaller}. What was saved is kept.",
        ) from error
