"""Changes of resolution: images are reduced, given noise and enlarged again, or blurred.

Shape letters: B images, R filters.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np

from idat_zoo.backbones.weights.canvas import SIZE
from idat_zoo.backbones.weights.draws import Floats, Ints, normal, uniform


def overlap(length: int) -> Floats:
    """The box filter that reduces 48 pixels to `length`: [length, 48], rows summing to one."""
    edge = np.linspace(0, SIZE, length + 1)
    pixel = np.arange(SIZE)
    shared = np.minimum(edge[1:, None], pixel + 1) - np.maximum(edge[:-1, None], pixel)
    rows: Floats = (np.maximum(shared, 0) * length / SIZE).astype(np.float32)
    return rows


def enlarge(length: int, *, cubic: bool) -> Floats:
    """The linear or cubic (a = -0.5) filter that enlarges `length` pixels to 48: [48, length]."""
    at = (np.arange(SIZE) + 0.5) * length / SIZE - 0.5
    d = np.abs(at[:, None] - np.arange(-2, length + 2))
    near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    kernel = np.where(d < 1, near, np.where(d < 2, far, 0)) if cubic else np.maximum(1 - d, 0)
    inside = kernel[:, 2:-2]
    rows: Floats = (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)
    return rows


def gaussian(width: float) -> Floats:
    """The Gaussian blur of 48 pixels, [48, 48]."""
    offset = np.subtract.outer(np.arange(SIZE), np.arange(SIZE)) / width
    kernel = np.exp(-0.5 * offset**2)
    rows: Floats = (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
    return rows


REDUCED: Final = (8, 9, 10, 12, 14, 16, 20, 24, 32)
BLURS: Final = (0.6, 1.0, 1.5)


@cache
def resamplers() -> tuple[Floats, Floats]:
    """Filters down and up [R, 48, 48], zero-padded: identity, blurs, then `REDUCED` twice."""
    identity = np.eye(SIZE, dtype=np.float32)
    down = [identity, *map(gaussian, BLURS)]
    up = [identity] * len(down)
    for cubic in (True, False):
        for length in REDUCED:
            padding = SIZE - length
            down.append(np.pad(overlap(length), ((0, padding), (0, 0))))
            up.append(np.pad(enlarge(length, cubic=cubic), ((0, 0), (0, padding))))
    return np.stack(down), np.stack(up)


def change_resolution(rng: np.random.Generator, values: Floats, *, coarse: Ints) -> Floats:
    """Reduce half of the images, add noise there, and enlarge them again.

    `coarse` [B] is the first index into `REDUCED` that leaves an image readable.
    """
    count = len(values)
    choice = coarse + (rng.random(count) ** 1.5 * (len(REDUCED) - coarse)).astype(np.int64)
    cubic = rng.random(count) < 0.7
    reduced = 1 + len(BLURS) + choice + np.where(cubic, 0, len(REDUCED))
    blurred = np.maximum(rng.integers(-3, 1 + len(BLURS), size=count), 0)
    filters = np.where(rng.random(count) < 0.55, reduced, blurred)
    down, up = (bank[filters] for bank in resamplers())
    small = down @ values @ np.swapaxes(down, 1, 2)
    level = np.maximum(uniform(rng, -0.1, 0.1, (count, 1, 1)), 0)
    small += normal(rng, 1, small.shape) * level
    return np.asarray(up @ small @ np.swapaxes(up, 1, 2), dtype=np.float32)
