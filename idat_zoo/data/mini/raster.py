"""Raster drawing with integer arithmetic, so that every platform draws the same pixels.

Lengths are fixed-point numbers with `PIXEL` to a pixel, angles have `TURN` to a turn, sines and
shares of a pixel `ONE` to one. Axes run to the right and downwards.

Shape letters: N images, S side of the image, K figures, P side of a figure's patch in
subpixels, G side of a lattice, T angles.
"""

from functools import cache
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Int64, UInt8

from idat_zoo.data.mini.counter import Draws

SIZE: Final = 64
PIXEL: Final = 64
TURN: Final = 2560
"""A multiple of the 40 orientations of sprites."""
ONE: Final = 256
SUBPIXELS: Final = 3

Numbers = npt.NDArray[np.int64]
"""Integers of any shape that fits the others."""

_FINE: Final = 10**30
_TWO_PI: Final = 6_283185307179586476925286766559
_ATTEMPTS: Final = 100
"""How many random places are tried for a figure: enough for every figure of the tasks."""


@cache
def _sine_table() -> Int64[np.ndarray, "T"]:
    """Sines of every angle, by the power series in Python's integers."""
    table = []
    for step in range(TURN):
        angle = _TWO_PI * step // TURN
        term = total = angle
        for order in range(2, 60, 2):
            term = -term * angle // _FINE * angle // (_FINE * order * (order + 1))
            total += term
        table.append((total * ONE * 2 + _FINE) // (2 * _FINE))
    return np.array(table, dtype=np.int64)


def sine(angle: Numbers) -> Numbers:
    """The sine, in -ONE..ONE."""
    return _sine_table()[angle % TURN]


def rotate(x: Numbers, y: Numbers, angle: Numbers) -> tuple[Numbers, Numbers]:
    """Coordinates along axes that are turned by an angle, clockwise as y runs downwards."""
    cos, sin = sine(angle + TURN // 4), sine(angle)
    return shrink(x * cos + y * sin, ONE), shrink(y * cos - x * sin, ONE)


def shrink(number: Numbers, divisor: Numbers | int) -> Numbers:
    """Division towards zero, which keeps symmetric values symmetric."""
    quotient = np.abs(number) // divisor
    return np.where(number < 0, -quotient, quotient)


def root(square: Numbers) -> Numbers:
    """The integer square root of numbers below 2^26."""
    return np.searchsorted(np.arange(2**13, dtype=np.int64) ** 2, square, side="right") - 1


@cache
def centres() -> Int64[np.ndarray, "S"]:
    """The coordinates of pixel centres along one side, from the middle of the image."""
    return np.arange(SIZE, dtype=np.int64) * PIXEL + PIXEL // 2 - SIZE * PIXEL // 2


def smooth_noise(
    lattice: Int64[np.ndarray, "N G G"], u: Numbers, v: Numbers, *, cell: Numbers | int
) -> Numbers:
    """A smooth field through the values of a lattice that repeats itself; `cell` is its spacing."""
    side = lattice.shape[1]
    flat = lattice.reshape(len(lattice), side * side)
    image = np.arange(len(lattice))[:, None, None]
    column, row = u // cell, v // cell
    right, down = (_ease((at % cell) * ONE // cell) for at in (u, v))
    left_top = [
        [flat[image, (row + below) % side * side + (column + beside) % side] for beside in (0, 1)]
        for below in (0, 1)
    ]
    upper, lower = (blend(left, near, right) for left, near in left_top)
    return blend(upper, lower, down)


def _ease(share: Numbers) -> Numbers:
    """3 t^2 - 2 t^3, which has no kinks where cells of a lattice meet."""
    return share * share * (3 * ONE - 2 * share) // ONE**2


def blend(ground: Numbers, figure: Numbers, share: Numbers) -> Numbers:
    """`ground` where the share is 0, `figure` where it is ONE."""
    return ground + (figure - ground) * share // ONE


def coverage_maps(
    inside: Bool[np.ndarray, "N K P P"], corner: Int64[np.ndarray, "N K 2"]
) -> tuple[Int64[np.ndarray, "N S S"], Int64[np.ndarray, "N S S"]]:
    """The share of each pixel that figures cover, and the number 0..K-1 of the last one there.

    `inside` holds subpixels of a patch for each figure, `corner` the pixel (x, y) of the patch's
    first one; patches may reach over the edge.
    """
    count, figures, fine, _ = inside.shape
    side = fine // SUBPIXELS
    covered = np.zeros((count, figures, side, side), dtype=np.int64)
    for row, column in product(range(SUBPIXELS), repeat=2):
        covered += inside[..., row::SUBPIXELS, column::SUBPIXELS]
    share = covered * ONE // SUBPIXELS**2
    cover = np.zeros((count, SIZE + 2 * side, SIZE + 2 * side), dtype=np.int64)
    owner = np.zeros_like(cover)
    image = np.arange(count)[:, None, None]
    step = np.arange(side)
    for figure in range(figures):
        columns = corner[:, figure, 0, None, None] + side + step
        rows = corner[:, figure, 1, None, None] + side + step[:, None]
        there = share[:, figure] > 0
        cover[image, rows, columns] = np.where(there, share[:, figure], cover[image, rows, columns])
        owner[image, rows, columns] = np.where(there, figure, owner[image, rows, columns])
    inner = slice(side, -side)
    return cover[:, inner, inner], owner[:, inner, inner]


def patch_coordinates(
    centre: Int64[np.ndarray, "N K 2"], *, reach: int
) -> tuple[Int64[np.ndarray, "N K 2"], Numbers, Numbers]:
    """A patch around each centre: its corner in pixels, and its subpixels' x and y from the centre.

    `reach` is the farthest that a figure comes from its centre. A centre counts from the image's
    upper left corner.
    """
    half = reach // PIXEL + 1
    corner = centre // PIXEL - half
    fine = np.arange((2 * half + 1) * SUBPIXELS, dtype=np.int64)
    offset = (2 * fine + 1) * PIXEL // (2 * SUBPIXELS)
    start = corner * PIXEL - centre
    x = start[..., 0, None, None] + offset
    y = start[..., 1, None, None] + offset[:, None]
    return corner, x, y


def place(
    draws: Draws, radius: Int64[np.ndarray, "N K"], *, gap: int
) -> Int64[np.ndarray, "N K 2"]:
    """Centres of discs that keep a gap from each other and from the edge; radius 0 keeps none.

    The largest go first; each takes the first free one of a row of random places.
    """
    count, figures = radius.shape
    span = np.int64(2**16)
    tries = draws.integers("place", 0, int(span) - 1, figures, _ATTEMPTS, 2)
    order = np.argsort(-radius, axis=1, kind="stable")
    ordered = np.take_along_axis(radius, order, axis=1)
    placed = np.zeros((count, figures, 2), dtype=np.int64)
    for figure in range(figures):
        own = ordered[:, figure]
        margin = (own + gap)[:, None, None]
        spots = margin + tries[:, figure] * (SIZE * PIXEL - 2 * margin) // span
        away_x, away_y = (
            spots[..., axis, None] - placed[:, None, :figure, axis] for axis in (0, 1)
        )
        needed = (own[:, None] + ordered[:, :figure] + gap)[:, None]
        free = (away_x**2 + away_y**2 >= needed**2) | (ordered[:, None, :figure] == 0)
        fits = free.all(axis=-1) | (own == 0)[:, None]
        assert fits.any(axis=1).all(), "no room for a figure"
        placed[:, figure] = spots[np.arange(count), fits.argmax(axis=1)]
    centre = np.zeros_like(placed)
    np.put_along_axis(centre, order[..., None], placed, axis=1)
    return centre


def tilt(draws: Draws, *, strength: int) -> Int64[np.ndarray, "N S S"]:
    """Light that falls off across the image in a random direction, in -strength..strength."""
    angle: Numbers = draws.integers("light direction", 0, TURN - 1)[:, None, None]
    most: Numbers = draws.integers("light", 0, strength)[:, None, None]
    along, _ = rotate(centres(), centres()[:, None], angle)
    return along * most // (SIZE * PIXEL * 3 // 4)


def finish(
    draws: Draws, pixels: Int64[np.ndarray, "N S S 3"], *, noise: int
) -> UInt8[np.ndarray, "N S S 3"]:
    """Add noise of about this standard deviation to each pixel and clip to bytes."""
    grain = draws.noise("noise", SIZE, SIZE * 3).reshape(pixels.shape)
    image: UInt8[np.ndarray, "N S S 3"] = np.clip(pixels + grain * noise // 104, 0, 255).astype(
        np.uint8
    )
    return image
