"""Plain messages for memory that runs out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from idat_zoo.errors import DeviceError
from idat_zoo.recipe import Recipe


@contextmanager
def plain_memory_errors(recipe: Recipe, *, runs: int = 1) -> Iterator[None]:
    """Turn running out of memory into one sentence with advice; what was saved stays on disk.

    `runs` is how many runs share the pass in which the recipe is trained.

    Raises: DeviceError in place of what torch or Python raises.
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
