"""Contours: closed curves, whose radius by angle is the class.

Shape letters: B images, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from idat_zoo.backbones.weights.canvas import SIZE, Figures, pixel_centres, place
from idat_zoo.backbones.weights.draws import Floats, Ints, normal, uniform
from idat_zoo.backbones.weights.labels import GLYPHS, LABELS, UNKNOWN, bins, single_labels

ANGLES: Final = 512


@dataclass(frozen=True, kw_only=True)
class ContourClasses:
    """Radius and slope factor by angle [K, 512], and whether a turn is visible [K].

    The farthest point lies at angle zero. The slope factor turns a radial distance to the contour
    into a distance along its normal.
    """

    radius: Floats
    slope: Floats
    turns: npt.NDArray[np.bool_]


def contour_classes(rng: np.random.Generator, count: int) -> ContourClasses:
    """Draw closed contours: radial harmonics (arXiv:2206.09132), polygons, superellipses."""
    angle = (np.arange(ANGLES, dtype=np.float32) + 0.5) * (2 * math.pi / ANGLES)
    order = np.arange(1, 9, dtype=np.float32)
    weight = normal(rng, 0.5, (count, 8)) * (rng.random((count, 8)) < 0.4) / order**0.5
    phase = uniform(rng, 0, 2 * math.pi, (count, 8, 1))
    waves = np.cos(order[:, None] * angle + phase)
    harmonic = np.exp(np.einsum("kh,kha->ka", weight, waves))

    sides = rng.integers(3, 8, size=(count, 1))
    inside = np.mod(angle, 2 * math.pi / sides) - math.pi / sides
    polygon = np.cos(inside) ** uniform(rng, -2, 2, (count, 1))
    power = np.exp(uniform(rng, math.log(0.7), math.log(8), (count, 1)))
    aspect = np.exp(uniform(rng, 0, math.log(3), (count, 1)))
    superellipse = (np.abs(np.cos(angle) / aspect) ** power + np.abs(np.sin(angle)) ** power) ** (
        -1 / power
    )

    kind = rng.random((count, 1))
    radius = np.where(kind < 0.6, harmonic, np.where(kind < 0.75, polygon, superellipse))
    radius = np.maximum(radius / radius.max(axis=1, keepdims=True), 0.15).astype(np.float32)
    ahead = radius.argmax(axis=1, keepdims=True) + np.arange(ANGLES)
    radius = np.take_along_axis(radius, ahead % ANGLES, axis=1)
    rise = (np.roll(radius, -1, axis=1) - np.roll(radius, 1, axis=1)) * (ANGLES / (4 * math.pi))
    turned = [
        np.abs(np.roll(radius, ANGLES * part // 60, axis=1) - radius).mean(axis=1)
        for part in (12, 15, 20, 24, 30, 36, 40)
    ]
    return ContourClasses(
        radius=radius,
        slope=(radius / np.hypot(radius, rise)).astype(np.float32),
        turns=np.min(turned, axis=0) > 0.06,
    )


def contour_ink(
    classes: ContourClasses,
    *,
    shape: Ints,
    scale: Floats,
    centre: Floats,
    rotation: Floats,
    outline: Floats,
) -> Floats:
    """Draw contours, filled or as lines of a width `outline` > 0: O objects -> [O, 48, 48]."""
    at = pixel_centres()
    dx = ((at - centre[:, :1]) / scale[:, None])[:, None, :]
    dy = ((at - centre[:, 1:]) / scale[:, None])[:, :, None]
    angle = (np.arctan2(dy, dx) - rotation[:, None, None]) * (ANGLES / (2 * math.pi))
    entry = np.mod(np.floor(angle).astype(np.int32), ANGLES) + (shape * ANGLES)[:, None, None]
    radial = np.sqrt(dx**2 + dy**2) - classes.radius.ravel()[entry]
    pixels = (scale * SIZE / 2)[:, None, None]
    distance = radial * classes.slope.ravel()[entry] * pixels
    width = outline[:, None, None] / 2
    ink: Floats = np.clip(0.5 - np.where(width > 0, np.abs(distance) - width, distance), 0, 1)
    return ink


def some_outlines(rng: np.random.Generator, count: int) -> Floats:
    """Line widths in pixels [O] of a quarter of the objects, 0 for the filled ones."""
    return np.where(rng.random(count) < 0.25, uniform(rng, 1.2, 4, count), np.float32(0))


def draw_contours(rng: np.random.Generator, classes: ContourClasses, count: int) -> Figures:
    """Draw one contour an image, at any place, size and angle."""
    shape = rng.integers(0, len(classes.turns), size=count)
    scale = np.exp(uniform(rng, math.log(0.14), math.log(0.95), count))
    turn = rng.random(count, dtype=np.float32)
    ink = contour_ink(
        classes,
        shape=shape,
        scale=scale,
        centre=place(rng, scale, overhang=0.1),
        rotation=turn * np.float32(2 * math.pi),
        outline=some_outlines(rng, count),
    )
    rotation = np.where(classes.turns[shape], bins(turn, 0, 1, LABELS["rotation"]), UNKNOWN)
    labels = single_labels(ink, shape=shape + GLYPHS, scale=scale, rotation=rotation)
    return Figures(ink=ink, values=ink, scale=scale, labels=labels)
