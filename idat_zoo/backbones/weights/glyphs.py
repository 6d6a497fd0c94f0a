"""Glyphs: figures of up to four Bezier strokes, whose control points are the class.

Shape letters: B images, K classes, P points of a polyline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from idat_zoo.backbones.weights.canvas import SIZE, Figures, pixel_centres, place
from idat_zoo.backbones.weights.draws import Floats, normal, uniform
from idat_zoo.backbones.weights.labels import single_labels, unknown

STROKES: Final = 4
POINTS: Final = 160


@dataclass(frozen=True, kw_only=True)
class GlyphClasses:
    """Control points [K, 16, 2], the Bezier weights [K, P, 16] that draw them, lengths [K]."""

    control: Floats
    weights: Floats
    length: Floats


def bezier_basis(t: Floats) -> Floats:
    """The cubic Bernstein polynomials, [...] -> [..., 4]."""
    s = 1 - t
    return np.stack([s**3, 3 * s**2 * t, 3 * s * t**2, t**3], axis=-1)


def stroke_controls(rng: np.random.Generator, count: int) -> Floats:
    """Control points [K, 4 strokes, 4, 2]: lines, arcs, loops, free curves."""
    control = uniform(rng, -1, 1, (count, STROKES, 4, 2))
    kind = rng.random((count, STROKES))
    joined = rng.random((count, STROKES))
    for stroke in range(STROKES):
        points = control[:, stroke]
        if stroke:
            at = bezier_basis(uniform(rng, 0, 1, count))
            inside = np.einsum("kc,kcd->kd", at, control[:, stroke - 1])
            start = np.where((joined[:, stroke] < 0.35)[:, None], control[:, stroke - 1, 3], inside)
            points[:, 0] = np.where((joined[:, stroke] < 0.65)[:, None], start, points[:, 0])
        along = points[:, 3] - points[:, 0]
        aside = along[:, ::-1] * np.array([-1, 1], np.float32)
        bulge = uniform(rng, 0.5, 1.6, (count, 2, 1)) * rng.choice([-1, 1], size=(count, 1, 1))
        line = points[:, :1] + along[:, None] * np.array([[1 / 3], [2 / 3]], np.float32)
        arc = points[:, [0, 3]] + aside[:, None] * bulge
        loop = points[:, :1] + along[:, None] + aside[:, None] * bulge * np.array([[1], [-1]])
        of = kind[:, stroke, None, None]
        points[:, 1:3] = np.where(
            of < 0.2, line, np.where(of < 0.5, arc, np.where(of < 0.7, loop, 1.4 * points[:, 1:3]))
        )
        looped = (of[:, 0] >= 0.5) & (of[:, 0] < 0.7)
        points[:, 3] = np.where(looped, points[:, 0], points[:, 3])
    return control


def glyph_classes(rng: np.random.Generator, count: int) -> GlyphClasses:
    """Draw glyphs of one to four Bezier strokes, each centred and scaled to the unit square."""
    control = stroke_controls(rng, count)
    strokes = 1 + rng.choice(STROKES, size=count, p=[0.15, 0.35, 0.3, 0.2])
    used = np.arange(STROKES) < strokes[:, None]
    fine = bezier_basis(np.linspace(0, 1, 33, dtype=np.float32))
    curve = np.einsum("tc,kscd->kstd", fine, control)
    seen = used[:, :, None, None]
    low = np.where(seen, curve, np.inf).min(axis=(1, 2))
    high = np.where(seen, curve, -np.inf).max(axis=(1, 2))
    half = ((high - low) / 2).max(axis=1)[:, None, None, None]
    middle = ((high + low) / 2)[:, None, None, :]
    control = ((control - middle) / half).astype(np.float32)

    steps = np.linalg.norm(np.diff(curve / half, axis=2), axis=3).sum(axis=2) * used
    total = np.cumsum(steps, axis=1)
    length = total[:, -1]
    reach = (np.arange(POINTS, dtype=np.float32) + 0.5) / POINTS * length[:, None]
    stroke = (reach[:, :, None] >= total[:, None, :-1]).sum(axis=2)
    before = np.take_along_axis(total - steps, stroke, axis=1)
    t = (reach - before) / np.take_along_axis(steps, stroke, axis=1)
    weights = np.zeros((count, POINTS, STROKES, 4), dtype=np.float32)
    basis = bezier_basis(t.astype(np.float32))
    np.put_along_axis(weights, stroke[:, :, None, None], basis[:, :, None, :], axis=2)
    return GlyphClasses(
        control=control.reshape(count, -1, 2),
        weights=weights.reshape(count, POINTS, -1),
        length=length.astype(np.float32),
    )


def stroke_ink(points: Floats, *, length: Floats, width: Floats) -> Floats:
    """Draw polylines [B, P, 2] of a length [B] and a width in pixels [B]: -> [B, 48, 48].

    A stroke is a row of Gaussian dots, so its density is the product of two thin matrices,
    [B, 48, P] and [B, P, 48]; thresholding the density gives an anti-aliased line.
    """
    half = SIZE / 2
    offset = (points[:, :, :, None] - pixel_centres()) * (half / width)[:, None, None, None]
    dots = np.exp(-0.5 * offset**2)
    density = np.swapaxes(dots[:, :, 1], 1, 2) @ dots[:, :, 0]
    density *= (length * half / (POINTS * math.sqrt(2 * math.pi) * width))[:, None, None]
    return np.clip(0.5 + (density - 0.5) * width[:, None, None] / 0.59, 0, 1)


def draw_glyphs(rng: np.random.Generator, classes: GlyphClasses, count: int) -> Figures:
    """Draw glyph instances: jittered control points, affine map, stroke width."""
    shape = rng.integers(0, len(classes.length), size=count)
    big = rng.random(count) < 0.7
    scale = np.where(big, uniform(rng, 0.6, 1, count), uniform(rng, 0.25, 0.7, count))
    rotation = normal(rng, 0.2, count)
    stretch, shear = np.exp(normal(rng, 0.15, count)), normal(rng, 0.15, count)
    cos, sin = np.cos(rotation), np.sin(rotation)
    affine = np.stack([cos, sin, shear * cos - sin, shear * sin + cos], axis=1).reshape(-1, 2, 2)
    sides = np.stack([np.minimum(stretch, 1), np.minimum(1 / stretch, 1)], axis=1)
    affine = affine * (scale[:, None] * sides)[:, None, :]

    jitter = normal(rng, 1, (count, STROKES * 4, 2)) * uniform(rng, 0, 0.12, (count, 1, 1))
    points = classes.weights[shape] @ (classes.control[shape] + jitter) @ affine
    points += place(rng, scale, overhang=0.1)[:, None, :]

    width = np.maximum(0.7, scale * SIZE / 2 * np.exp(uniform(rng, -3.4, -2, count)))
    length = classes.length[shape] * scale * sides.mean(axis=1)
    ink = stroke_ink(points, length=length, width=width)
    labels = single_labels(ink, shape=shape, scale=scale, rotation=unknown(count))
    return Figures(ink=ink, values=ink, scale=scale, labels=labels)
