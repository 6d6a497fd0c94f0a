"""`textures`: eight kinds of procedural texture in random colours.

A stand-in for VTAB's natural group, named as what it is. Kind, and nothing else, is the label.

Shape letters: N images, S side of the image.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from idat_zoo.data.mini.counter import Draws
from idat_zoo.data.mini.drawing import Drawing, draw_all
from idat_zoo.data.mini.raster import (
    ONE,
    PIXEL,
    SIZE,
    TURN,
    Numbers,
    blend,
    centres,
    finish,
    root,
    rotate,
    sine,
    smooth_noise,
    tilt,
)

PERIOD: Final = (5 * PIXEL, 14 * PIXEL)
"""The range of a pattern's period: short ones suffer when images shrink."""
WARP: Final = 3 * PIXEL
"""How far patterns are bent at most: more makes kinds alike."""
CONTRAST: Final = (14, 90)
"""The range of the difference in brightness between a texture's two colours."""
TINT: Final = 30
"""How far each channel's difference may be from that brightness."""
LIGHT: Final = 45
"""The strongest illumination gradient, from the middle to a corner."""
NOISE: Final = 14
"""The standard deviation of pixel noise."""
LATTICE: Final = 32
"""The side of the lattices of random values, which bricks, dots, cells and clouds repeat."""

Field = Numbers
"""One number a pixel, `[N, S, S]`."""


def _wave(along: Field, period: Numbers, *, sharpness: Numbers) -> Field:
    """A wave of the given sharpness, in 0..ONE."""
    wave: Field = np.clip((ONE + sine(along * TURN // period) * sharpness) // 2, 0, ONE)
    return wave


def _sharpness(draws: Draws) -> Numbers:
    return draws.integers("sharpness", 1, 6)[:, None, None]


def _stripes(draws: Draws, u: Field, v: Field, period: Numbers) -> Field:
    return _wave(u, period, sharpness=_sharpness(draws))


def _checks(draws: Draws, u: Field, v: Field, period: Numbers) -> Field:
    product = sine(u * TURN // period) * sine(v * TURN // period) // ONE
    checks: Field = np.clip((ONE + product * 2 * _sharpness(draws)) // 2, 0, ONE)
    return checks


def _rings(draws: Draws, u: Field, v: Field, period: Numbers) -> Field:
    centre = draws.integers("centre", -12 * PIXEL, 12 * PIXEL, 2, 1, 1)
    radius = root((u - centre[:, 0]) ** 2 + (v - centre[:, 1]) ** 2)
    phase = draws.integers("phase", 0, 14 * PIXEL)[:, None, None]
    return _wave(radius + phase, period, sharpness=_sharpness(draws))


def _zigzag(draws: Draws, u: Field, v: Field, period: Numbers) -> Field:
    """Stripes that turn by a right angle after every period."""
    across = v % (2 * period)
    return _wave(u + np.minimum(across, 2 * period - across), period, sharpness=_sharpness(draws))


def _bricks(draws: Draws, u: Field, v: Field, period: Numbers) -> Field:
    """Bricks twice as long as high, each second row shifted by a half, between joints."""
    row = v // period
    along = u + row % 2 * period
    brick = along // (2 * period)
    tone = draws.integers("tone", ONE * 3 // 8, ONE, LATTICE * LATTICE)
    number = row % LATTICE * LATTICE + brick % LATTICE
    image = np.arange(len(tone))[:, None, None]
    joint = (v % period < period // 6) | (along % (2 * period) < period // 6)
    return np.where(joint, 0, tone[image, number])


def _nearest(
    draws: Draws, u: Field, v: Field, period: Numbers, *, jitter: int
) -> tuple[Field, Field]:
    """Squared distance to the nearest point of a jittered lattice, and that point's number."""
    points = draws.integers("points", -jitter, jitter, LATTICE * LATTICE, 2)
    image = np.arange(len(points))[:, None, None]
    best, owner = np.full_like(u, 2**40), np.zeros_like(u)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            column, row = u // period + right, v // period + down
            point = row % LATTICE * LATTICE + column % LATTICE
            moved = points[image, point] * period[..., None] // ONE
            middle = period // 2
            dx = u - (column * period + middle + moved[..., 0])
            dy = v - (row * period + middle + moved[..., 1])
            distance = dx**2 + dy**2
            closer = distance < best
            best, owner = np.where(closer, distance, best), np.where(closer, point, owner)
    return best, owner


def _dots(draws: Draws, u: Field, v: Field, period: Numbers) -> Field:
    distance, _ = _nearest(draws, u, v, period, jitter=ONE // 8)
    reach = (period * draws.integers("reach", 70, 110)[:, None, None] // ONE) ** 2
    dots: Field = np.clip(ONE // 2 + (reach - distance) * ONE // reach, 0, ONE)
    return dots


def _cells(draws: Draws, u: Field, v: Field, period: Numbers) -> Field:
    _, owner = _nearest(draws, u, v, period, jitter=ONE * 3 // 8)
    tone = draws.integers("tone", 0, ONE, LATTICE * LATTICE)
    return tone[np.arange(len(tone))[:, None, None], owner]


def _clouds(draws: Draws, u: Field, v: Field, period: Numbers) -> Field:
    """Three octaves of smooth noise."""
    lattice = draws.integers("lattice", 0, ONE, LATTICE, LATTICE)
    octaves = [
        smooth_noise(lattice, u, v, cell=period // 2**octave) // 2**octave for octave in range(3)
    ]
    clouds: Field = np.clip(sum(octaves) * 8 // 7 - ONE // 2, 0, ONE)
    return clouds


KINDS: Final[dict[str, Callable[[Draws, Field, Field, Numbers], Field]]] = {
    "stripes": _stripes,
    "checks": _checks,
    "rings": _rings,
    "zigzag": _zigzag,
    "bricks": _bricks,
    "dots": _dots,
    "cells": _cells,
    "clouds": _clouds,
}
"""Each kind, in the order of the labels."""


def _pattern(draws: Draws, kind: Callable[[Draws, Field, Field, Numbers], Field]) -> Field:
    """One kind's share of the second colour, under a random period, turn, shift and warp."""
    period = draws.integers("period", *PERIOD)[:, None, None]
    angle = draws.integers("angle", 0, TURN - 1)[:, None, None]
    u, v = rotate(centres(), centres()[:, None], angle)
    lattice = draws.integers("warp", -WARP, WARP, 2, 8, 8)
    shift = draws.integers("shift", 0, 0 if kind is _rings else 16 * PIXEL, 2, 1, 1)
    bent_u, bent_v = (
        at + shift[:, axis] + smooth_noise(lattice[:, axis], u, v, cell=20 * PIXEL)
        for axis, at in enumerate((u, v))
    )
    return kind(draws, bent_u, bent_v, period)


def draw(draws: Draws) -> Drawing:
    """The images of some draws, with their labels."""
    targets = draws.integers("kind", 0, len(KINDS) - 1)
    share = np.zeros((len(targets), SIZE, SIZE), dtype=np.int64)
    for label, kind in enumerate(KINDS.values()):
        chosen = targets == label
        if chosen.any():
            share[chosen] = _pattern(Draws(task=draws.task, images=draws.images[chosen]), kind)
    sign = draws.integers("sign", 0, 1)[:, None] * 2 - 1
    contrast = sign * draws.integers("contrast", *CONTRAST)[:, None]
    step = contrast + draws.integers("tint", -TINT, TINT, 3)
    middle = draws.integers("colour", 60, 195, 3)
    ground, figure = ((middle + step * part // 2)[:, None, None] for part in (-1, 1))
    pixels = blend(ground, figure, share[..., None]) + tilt(draws, strength=LIGHT)[..., None]
    return Drawing(images=finish(draws, pixels, noise=NOISE), targets=targets)


def draw_textures() -> Drawing:
    """The textures with their kind as label, 0..7 in the order of `KINDS`."""
    return draw_all("textures", draw, KINDS)
