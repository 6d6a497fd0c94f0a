"""A counter-based random generator in integers alone.

Each word is a function of (task, name of the draw, image, position), so no draw depends on the
order of others, and every platform and NumPy version gives the same values. The mixing is
splitmix64's finaliser (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195, in Stafford's variant
13); names become numbers by 64-bit FNV-1a.

Shape letters: N images.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from jaxtyping import Int64, UInt64

WORD: Final = 2**64
GOLDEN: Final = 0x9E3779B97F4A7C15
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
FNV_OFFSET, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


def mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64's finaliser, a bijection of 64-bit words that changes half of the bits."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(FIRST)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(SECOND)
    return words ^ (words >> np.uint64(31))


def hash_name(name: str) -> int:
    """64-bit FNV-1a of a name's UTF-8 bytes."""
    value = FNV_OFFSET
    for byte in name.encode():
        value = (value ^ byte) * FNV_PRIME % WORD
    return value


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The random draws of some images of one task; a method's `name` says which quantity it is."""

    task: str
    images: Int64[np.ndarray, "N"]

    def words(self, name: str, *shape: int) -> UInt64[np.ndarray, "N ..."]:
        """Uniform 64-bit words `[N, *shape]`: mix(mix(name + G (image + 1)) + G (position + 1))."""
        start = np.array([hash_name(f"{self.task}/{name}")], dtype=np.uint64)
        golden = np.uint64(GOLDEN)
        images = mix(start + golden * (self.images.astype(np.uint64) + np.uint64(1)))
        positions = golden * np.arange(1, math.prod(shape) + 1, dtype=np.uint64)
        return mix(images[:, None] + positions).reshape(len(images), *shape)

    def integers(self, name: str, low: int, high: int, *shape: int) -> Int64[np.ndarray, "N ..."]:
        """Uniform integers `[N, *shape]` from low to high, both included.

        By the high half of a product with the upper 32 bits: no value is likelier than another by
        more than (high - low) / 2^32.
        """
        upper = self.words(name, *shape) >> np.uint64(32)
        return (upper * np.uint64(high - low + 1) >> np.uint64(32)).astype(np.int64) + low

    def noise(self, name: str, *shape: int) -> Int64[np.ndarray, "N ..."]:
        """Differences of two uniform bytes `[N, *shape]`: triangular in -255..255, deviation 104.

        The last of `shape` must be a multiple of four, as one word gives four values.
        """
        assert shape[-1] % 4 == 0, shape
        words = self.words(name, *shape[:-1], shape[-1] // 4)
        # Little-endian by name, so that the bytes lie alike on every platform.
        parts = words.astype("<u8").view(np.uint8).reshape(len(words), *shape, 2).astype(np.int64)
        return parts[..., 0] - parts[..., 1]
