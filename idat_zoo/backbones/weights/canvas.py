"""The canvas of 48 x 48 pixels, and the figures that are drawn on it.

Coordinates run from -1 to 1 over the canvas, y downwards. Shape letters: B images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from idat_zoo.backbones.weights.draws import Floats, Ints, uniform

SIZE: Final = 48


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures on a plain ground.

    ink [B, 48, 48] is the share of a pixel that figures cover, values [B, 48, 48] its brightness,
    scale [B] the half-width of the figures.
    """

    ink: Floats
    values: Floats
    labels: dict[str, Ints]
    scale: Floats


@cache
def pixel_centres() -> Floats:
    """The coordinates [48] of pixel centres along one side."""
    return ((np.arange(SIZE, dtype=np.float32) + 0.5) * 2 / SIZE - 1).astype(np.float32)


def place(rng: np.random.Generator, scale: Floats, *, overhang: float) -> Floats:
    """Centres [B, 2] such that at most `overhang` of a figure's half-width leaves the canvas."""
    room = np.maximum(1 - scale * (1 - overhang), 0)
    centre: Floats = uniform(rng, -1, 1, (len(scale), 2)) * room[:, None]
    return centre


def coverage(ink: Floats, cells: int) -> Floats:
    """The mean of the ink in each of cells x cells squares, [B, 48, 48] -> [B, cells, cells]."""
    side = SIZE // cells
    share: Floats = ink.reshape(-1, cells, side, cells, side).mean(axis=(2, 4))
    return share
