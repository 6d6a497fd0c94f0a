"""Random draws in float32, from a counter-based generator for each block of images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def generator(seed: int, index: int) -> np.random.Generator:
    """The counter-based generator of one block."""
    return np.random.Generator(np.random.Philox(key=[seed, index]))


def uniform(
    rng: np.random.Generator, low: int | float, high: int | float, shape: int | tuple[int, ...]
) -> Floats:
    """Uniform float32 draws in [low, high)."""
    return (low + (high - low) * rng.random(shape, dtype=np.float32)).astype(np.float32)


def normal(
    rng: np.random.Generator, deviation: int | float, shape: int | tuple[int, ...]
) -> Floats:
    """Normal float32 draws around zero."""
    return np.float32(deviation) * rng.standard_normal(shape, dtype=np.float32)
