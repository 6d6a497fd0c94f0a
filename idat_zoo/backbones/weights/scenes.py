"""Scenes: several contours of one class on one canvas, to be counted.

Shape letters: B images, O objects.
"""

from __future__ import annotations

import math

import numpy as np

from idat_zoo.backbones.weights.canvas import Figures
from idat_zoo.backbones.weights.contours import ContourClasses, contour_ink, some_outlines
from idat_zoo.backbones.weights.draws import uniform
from idat_zoo.backbones.weights.labels import GLYPHS, LABELS, UNKNOWN, unknown


def draw_scenes(rng: np.random.Generator, classes: ContourClasses, count: int) -> Figures:
    """Draw one to ten objects an image on a shaken 4 x 4 grid.

    Half the scenes repeat one shape; in a quarter some objects are brighter than the ground and
    some darker.
    """
    objects = rng.integers(1, LABELS["count"] + 1, size=count)
    cell = np.argsort(rng.random((count, 16)), axis=1)
    image, item = np.nonzero(np.arange(16) < objects[:, None])
    cell = cell[image, item]
    grid = np.stack([cell % 4, cell // 4], axis=1) * 0.5 - 0.75
    total = len(image)
    centre = (grid + uniform(rng, -0.12, 0.12, (total, 2))).astype(np.float32)
    same = rng.random(count) < 0.5
    first = rng.integers(0, len(classes.turns), size=count)
    shape = np.where(same[image], first[image], rng.integers(0, len(classes.turns), size=total))
    ink = contour_ink(
        classes,
        shape=shape,
        scale=uniform(rng, 0.12, 0.3, total),
        centre=centre,
        rotation=uniform(rng, 0, 2 * math.pi, total),
        outline=some_outlines(rng, total),
    )
    mixed = rng.random(count) < 0.25
    dark = mixed[image] & (rng.random(total) < 0.5)
    shade = uniform(rng, 0.6, 1, total)
    starts = np.cumsum(objects) - objects
    light, shadow = (
        np.maximum.reduceat(ink * (shade * of)[:, None, None], starts) for of in (~dark, dark)
    )
    ground, gain = np.where(mixed, 0.5, 0.0), np.where(mixed, 0.5, 1.0)
    values = ground[:, None, None] + gain[:, None, None] * (light - shadow)
    labels = {name: unknown(count) for name in LABELS}
    labels["shape"] = np.where(same, first + GLYPHS, UNKNOWN)
    labels["count"] = objects - 1
    return Figures(
        ink=np.maximum.reduceat(ink, starts),
        values=values.astype(np.float32),
        scale=np.full(count, 0.2, dtype=np.float32),
        labels=labels,
    )
