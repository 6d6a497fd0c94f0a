"""The labels of a drawn image: what each measures, its bins, and how it is read from the ink.

Shape letters: B images.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from idat_zoo.backbones.weights.canvas import pixel_centres
from idat_zoo.backbones.weights.draws import Floats, Ints

UNKNOWN: Final = -1
"""The label of a quantity that an image does not have; the losses ignore it."""

GLYPHS: Final = 1024
CONTOURS: Final = 256
TEXTURES: Final = 256
LABELS: Final = {
    "shape": GLYPHS + CONTOURS + TEXTURES,
    "x": 16,
    "y": 16,
    "scale": 8,
    "rotation": 16,
    "axis": 12,
    "count": 10,
}
"""Each label and its number of bins. `rotation` is where the farthest point of a contour lies, over
a full turn; `axis` the direction of the longest axis of the ink, over half a turn."""
MIN_SCALE: Final = 0.1


def bins(value: Floats, low: int | float, high: int | float, count: int) -> Ints:
    """The index of the equal bin of [low, high) that each value falls in, clipped to the ends."""
    index: Ints = np.clip((value - low) / (high - low) * count, 0, count - 1).astype(np.int64)
    return index


def unknown(count: int) -> Ints:
    """The label `UNKNOWN` for every image, [B]."""
    return np.full(count, UNKNOWN, dtype=np.int64)


def moments(ink: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Centroid x, y [B], and angle of the longest axis and elongation in [0, 1], of the ink."""
    at = pixel_centres()
    columns, rows = ink.sum(axis=1), ink.sum(axis=2)
    mass = np.maximum(columns.sum(axis=1), 1e-6)
    x, y = columns @ at / mass, rows @ at / mass
    xx, yy = columns @ at**2 / mass - x**2, rows @ at**2 / mass - y**2
    xy = (ink @ at) @ at / mass - x * y
    angle = np.mod(np.arctan2(2 * xy, xx - yy) / 2, math.pi)
    return x, y, angle, np.hypot(2 * xy, xx - yy) / np.maximum(xx + yy, 1e-6)


def single_labels(ink: Floats, *, shape: Ints, scale: Floats, rotation: Ints) -> dict[str, Ints]:
    """The labels of images of one figure each."""
    x, y, angle, elongation = moments(ink)
    return {
        "shape": shape,
        "x": bins(x, -1, 1, LABELS["x"]),
        "y": bins(y, -1, 1, LABELS["y"]),
        "scale": bins(np.log(scale), math.log(MIN_SCALE), 0, LABELS["scale"]),
        "rotation": rotation,
        "axis": np.where(elongation > 0.25, bins(angle, 0, math.pi, LABELS["axis"]), UNKNOWN),
        "count": np.zeros(len(ink), dtype=np.int64),
    }


def pad_unknown(values: Floats, count: int) -> Floats:
    """Append `count` rows of `UNKNOWN`."""
    rows = np.full((count, *values.shape[1:]), UNKNOWN, dtype=np.float32)
    return np.concatenate([values, rows])
