"""Images drawn by formula, with every label that the formula knows.

Formula-driven supervision: Kataoka et al., "Pre-training without Natural Images",
arXiv:2101.08515, and "Replacing Labeled Real-image Datasets with Auto-generated Contours",
arXiv:2206.09132. As there, a class is a set of formula parameters and an image one noisy instance
of it. Ours differs in the formulas (closed radial contours as there; Bezier glyphs, textures and
scenes besides), in drawing on the fly, so that no image is seen twice, and in supervising place,
size, orientation, count and a coarse map of the ink beside the class.

Every draw comes from a Philox generator keyed by (seed, block index), so a block of images is
reproducible from its index alone.

Shape letters: B images, H W image (48 x 48, or height and width of the 48 x 48 canvas), K classes,
P points of a polyline, O objects. Coordinates run from -1 to 1 over the canvas, y downwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

SIZE: Final = 48
FINE, COARSE = 24, 8
BLOCK: Final = 256
UNKNOWN: Final = -1
"""The label of a quantity that means nothing for an image; losses ignore it."""

GLYPHS: Final = 1024
CONTOURS: Final = 256
TEXTURES: Final = 256
GLYPH_SHARE, CONTOUR_SHARE, TEXTURE_SHARE, SCENE_SHARE = 116, 64, 24, 52

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

STROKES: Final = 4
POINTS: Final = 160
ANGLES: Final = 512
CELLS: Final = 24
MIN_SCALE: Final = 0.1
CLASS_STREAM: Final = 2**63
"""The block index, out of reach of any real one, that keys the draw of the classes."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of images and their labels.

    images [B, 3, 48, 48], labels [B], and maps of the share of each cell that ink covers: ink_map
    [B, 24, 24] and ink_map_coarse [B, 8, 8] of the figures as they lie, shape_map [B, 8, 8] of the
    class's shape, centred, upright and undisturbed. What means nothing for an image is `UNKNOWN`.
    """

    images: npt.NDArray[np.uint8]
    labels: dict[str, Ints]
    ink_map: Floats
    ink_map_coarse: Floats
    shape_map: Floats


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


@dataclass(frozen=True, kw_only=True)
class GlyphClasses:
    """Control points [K, 16, 2], the Bezier weights [K, P, 16] that draw them, lengths [K]."""

    control: Floats
    weights: Floats
    length: Floats


@dataclass(frozen=True, kw_only=True)
class ContourClasses:
    """Radius and slope factor by angle [K, 512], and whether a turn is visible [K].

    The farthest point lies at angle zero. The slope factor turns a radial distance to the contour
    into a distance along its normal.
    """

    radius: Floats
    slope: Floats
    turns: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class TextureClasses:
    """Formula parameters of the textures, each [K]; `kind` 0: waves, 1: noise, 2: cells."""

    kind: Ints
    mode: Ints
    frequency: Floats
    angle: Floats
    spread: Floats
    sharpness: Floats


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


def bins(value: Floats, low: int | float, high: int | float, count: int) -> Ints:
    """The index of the equal bin of [low, high) that each value falls in, clipped to the ends."""
    index: Ints = np.clip((value - low) / (high - low) * count, 0, count - 1).astype(np.int64)
    return index


def unknown(count: int) -> Ints:
    """A label [B] that means nothing."""
    return np.full(count, UNKNOWN, dtype=np.int64)


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


def texture_classes(rng: np.random.Generator, count: int) -> TextureClasses:
    """Draw parameters of waves (gratings, checkers), band-pass noise and cells."""
    return TextureClasses(
        kind=rng.integers(0, 3, size=count),
        mode=rng.integers(0, 4, size=count),
        frequency=np.exp(uniform(rng, math.log(1.5), math.log(11), count)),
        angle=uniform(rng, 0, math.pi, count),
        spread=uniform(rng, 0, 1, count),
        sharpness=np.exp(uniform(rng, math.log(0.8), math.log(12), count)),
    )


@cache
def pixel_centres() -> Floats:
    """The coordinates [48] of pixel centres along one side."""
    return ((np.arange(SIZE, dtype=np.float32) + 0.5) * 2 / SIZE - 1).astype(np.float32)


def place(rng: np.random.Generator, scale: Floats, *, overhang: float) -> Floats:
    """Centres [B, 2] such that at most `overhang` of a figure's half-width leaves the canvas."""
    room = np.maximum(1 - scale * (1 - overhang), 0)
    centre: Floats = uniform(rng, -1, 1, (len(scale), 2)) * room[:, None]
    return centre


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


def waves(rng: np.random.Generator, mode: Ints, frequency: Floats, angle: Floats) -> Floats:
    """Gratings (modes 0, 1), checkers (2) and bent gratings (3), [B, 48, 48] around zero."""
    count = len(mode)
    at = pixel_centres()
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    u = cos * at + sin * at[:, None]
    v = cos * at[:, None] - sin * at
    turns = (frequency * math.pi)[:, None, None]
    phase = uniform(rng, 0, 2 * math.pi, (2, count, 1, 1))
    bent = (mode == 3)[:, None, None]
    u = u + np.where(bent, np.float32(0.12) * np.sin(5 * v + phase[1]), 0)
    wave = np.cos(turns * u + phase[0])
    checker = (mode == 2)[:, None, None]
    value: Floats = np.where(checker, 2 * wave * np.cos(turns * v + phase[1]), wave * math.sqrt(2))
    return value


def band_noise(
    rng: np.random.Generator, mode: Ints, frequency: Floats, angle: Floats, spread: Floats
) -> Floats:
    """White noise filtered to a band: all angles (modes 0, 1), one (2), or 1/f (3)."""
    count = len(mode)
    fy = np.fft.fftfreq(SIZE, 1 / SIZE).astype(np.float32)[:, None]
    fx = np.arange(SIZE // 2 + 1, dtype=np.float32)
    radius = np.hypot(fx, fy)
    width = 0.15 + 0.5 * spread[:, None, None]
    octaves = np.log(np.maximum(radius, 0.5) / frequency[:, None, None])
    gain = np.exp(-0.5 * (octaves / width) ** 2)
    off = np.sin(np.arctan2(fy, fx) - angle[:, None, None])
    gain = np.where((mode == 2)[:, None, None], gain * np.exp(-8 * off**2), gain)
    fall = np.maximum(radius, 0.5) ** -(0.8 + 1.4 * spread[:, None, None])
    gain = np.where((mode == 3)[:, None, None], fall, gain)
    noise = np.fft.irfft2(gain * np.fft.rfft2(normal(rng, 1, (count, SIZE, SIZE))), s=(SIZE, SIZE))
    deviation = noise.std(axis=(1, 2), keepdims=True)
    value: Floats = (noise / np.maximum(deviation, 1e-6)).astype(np.float32)
    return value


def cells(rng: np.random.Generator, mode: Ints, frequency: Floats) -> Floats:
    """Scattered points: discs (modes 0, 1), walls between nearest points (2), filled cells (3)."""
    count = len(mode)
    at = pixel_centres()
    number = np.clip(frequency * 2, 3, CELLS)
    points = uniform(rng, -1.1, 1.1, (count, CELLS, 2))
    points[np.arange(CELLS) >= number[:, None]] = 9
    squared = (
        np.square(at - points[:, :, :1])[:, :, None, :]
        + np.square(at - points[:, :, 1:])[:, :, :, None]
    )
    nearest = squared.min(axis=1)
    radius = (0.55 / np.sqrt(number))[:, None, None]
    value = (radius - np.sqrt(nearest)) / radius * 2
    if (walls := mode == 2).any():
        second = np.partition(squared[walls], 1, axis=1)[:, 1]
        gap = np.sqrt(second) - np.sqrt(nearest[walls])
        value[walls] = (radius[walls] - gap) / radius[walls] * 2
    if (filled := mode == 3).any():
        level = normal(rng, 1.2, (int(filled.sum()), CELLS))
        owner = squared[filled].argmin(axis=1)
        flat = np.take_along_axis(level, owner.reshape(len(level), -1), axis=1)
        value[filled] = flat.reshape(-1, SIZE, SIZE)
    result: Floats = value
    return result


def draw_textures(rng: np.random.Generator, classes: TextureClasses, shape: Ints) -> Floats:
    """Draw texture instances of the given classes, [B] -> [B, 48, 48] in [0, 1]."""
    count = len(shape)
    kind, mode = classes.kind[shape], classes.mode[shape]
    frequency = classes.frequency[shape] * np.exp(normal(rng, 0.05, count))
    angle = classes.angle[shape] + normal(rng, 0.08, count)
    value = np.empty((count, SIZE, SIZE), dtype=np.float32)
    of = [kind == k for k in range(3)]
    value[of[0]] = waves(rng, mode[of[0]], frequency[of[0]], angle[of[0]])
    spread = classes.spread[shape]
    value[of[1]] = band_noise(rng, *(v[of[1]] for v in (mode, frequency, angle, spread)))
    value[of[2]] = cells(rng, mode[of[2]], frequency[of[2]])
    steep = classes.sharpness[shape] * np.exp(normal(rng, 0.1, count))
    squashed: Floats = 1 / (1 + np.exp(np.clip(-steep[:, None, None] * value, -30, 30)))
    return squashed


def coverage(ink: Floats, cells: int) -> Floats:
    """The mean of the ink in each of cells x cells squares, [B, 48, 48] -> [B, cells, cells]."""
    side = SIZE // cells
    share: Floats = ink.reshape(-1, cells, side, cells, side).mean(axis=(2, 4))
    return share


def pad_unknown(values: Floats, count: int) -> Floats:
    """Append `count` rows of `UNKNOWN`."""
    rows = np.full((count, *values.shape[1:]), UNKNOWN, dtype=np.float32)
    return np.concatenate([values, rows])


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


def colour(rng: np.random.Generator, values: Floats) -> npt.NDArray[np.uint8]:
    """Map 0 to a ground colour and 1 to a figure colour: [B, 48, 48] -> [B, 3, 48, 48].

    Two fifths are black and white, a fifth is coloured, and both polarities are equally common.
    """
    count = len(values)
    contrast = uniform(rng, 0.25, 1, count)
    low = uniform(rng, 0, 1, count) * (1 - contrast)
    plain = rng.random(count) < 0.4
    low, high = np.where(plain, 0, low), np.where(plain, 1, low + contrast)
    flip = rng.random(count) < 0.5
    ends = np.stack([np.where(flip, high, low), np.where(flip, low, high)], axis=1)
    tint = normal(rng, 0.2, (count, 2, 3)) * (rng.random((count, 1, 1)) < 0.2)
    ends = ((ends[:, :, None] + tint) * 255).astype(np.float32)[..., None, None]
    mixed = ends[:, 0] + values[:, None] * (ends[:, 1] - ends[:, 0])
    image: npt.NDArray[np.uint8] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
    return image


class Formulas:
    """The classes of one seed, and the endless row of image blocks drawn from them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = generator(seed, CLASS_STREAM)
        self.glyphs = glyph_classes(rng, GLYPHS)
        self.contours = contour_classes(rng, CONTOURS)
        self.textures = texture_classes(rng, TEXTURES)
        plain = coverage(np.concatenate(self.plain_figures()), COARSE)
        # The last row is that of shape -1, `UNKNOWN`.
        self.shape_maps = pad_unknown(plain, TEXTURES + 1)

    def block(self, index: int) -> Block:
        """Draw the block of `BLOCK` images with this index."""
        rng = generator(self.seed, index)
        parts = [
            draw_glyphs(rng, self.glyphs, GLYPH_SHARE),
            draw_contours(rng, self.contours, CONTOUR_SHARE),
            draw_scenes(rng, self.contours, SCENE_SHARE),
        ]
        ink = np.concatenate([part.ink for part in parts])
        texture = rng.integers(0, TEXTURES, size=TEXTURE_SHARE)
        figures = np.concatenate([part.values for part in parts])
        values = np.concatenate(
            [self.clutter(rng, figures, ink), draw_textures(rng, self.textures, texture)]
        )
        scale = np.concatenate([part.scale for part in parts])
        coarse = np.where(scale > 0.55, 0, np.where(scale > 0.35, 4, 6))
        coarse = np.concatenate([coarse, np.full(TEXTURE_SHARE, 6)])
        labels = {
            name: np.concatenate([*(part.labels[name] for part in parts), unknown(TEXTURE_SHARE)])
            for name in LABELS
        }
        labels["shape"][-TEXTURE_SHARE:] = texture + GLYPHS + CONTOURS
        order = rng.permutation(BLOCK)
        return Block(
            images=colour(rng, change_resolution(rng, values, coarse=coarse))[order],
            labels={name: value[order] for name, value in labels.items()},
            ink_map=pad_unknown(coverage(ink, FINE), TEXTURE_SHARE)[order],
            ink_map_coarse=pad_unknown(coverage(ink, COARSE), TEXTURE_SHARE)[order],
            shape_map=self.shape_maps[labels["shape"][order]],
        )

    def plain_figures(self) -> tuple[Floats, Floats]:
        """Each glyph and contour of the classes, centred, upright and undisturbed."""
        glyphs = self.glyphs
        large = np.full(GLYPHS, 0.9, dtype=np.float32)
        points = glyphs.weights @ glyphs.control * np.float32(0.9)
        strokes = stroke_ink(points, length=glyphs.length * large, width=2 * large)
        still = np.zeros(CONTOURS, dtype=np.float32)
        contours = contour_ink(
            self.contours,
            shape=np.arange(CONTOURS),
            scale=still + np.float32(0.9),
            centre=np.zeros((CONTOURS, 2), dtype=np.float32),
            rotation=still,
            outline=still,
        )
        return strokes, contours

    def clutter(self, rng: np.random.Generator, figures: Floats, ink: Floats) -> Floats:
        """Put a fainter texture behind a quarter of the figures and inside another eighth."""
        values = figures.copy()
        fate = rng.random(len(ink))
        behind, inside = fate < 0.25, fate > 0.875
        ground = self.any_textures(rng, int(behind.sum()))
        values[behind] += (1 - ink[behind]) * ground * uniform(rng, 0.1, 0.6, (len(ground), 1, 1))
        filling = self.any_textures(rng, int(inside.sum()))
        values[inside] *= 1 - filling * uniform(rng, 0.1, 0.6, (len(filling), 1, 1))
        return values

    def any_textures(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw textures of random classes."""
        return draw_textures(rng, self.textures, rng.integers(0, TEXTURES, size=count))
