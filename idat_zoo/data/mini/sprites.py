"""`sprites_loc` and `sprites_ori`: drawn by the definition of dSprites.

Matthey et al. 2017, github.com/google-deepmind/dsprites-dataset: one white shape on black. Ours
differs in the exact outlines, and in that its 40 orientations are all different: those of dSprites
include both 0 and a full turn. Labels are binned as VTAB bins them (arXiv:1910.04867).

Shape letters: N images, S side of the image.
"""

from typing import Final

import numpy as np
from jaxtyping import Bool, Int64

from idat_zoo.data.mini.counter import Draws
from idat_zoo.data.mini.drawing import Drawing, draw_all
from idat_zoo.data.mini.raster import PIXEL, TURN, Numbers, centres, rotate, shrink

SHAPES: Final = ("square", "ellipse", "heart")
SCALES, ORIENTATIONS, POSITIONS = 6, 40, 32
FACTORS: Final = {
    "shape": len(SHAPES),
    "scale": SCALES,
    "orientation": ORIENTATIONS,
    "x": POSITIONS,
    "y": POSITIONS,
}
"""Each factor and its number of values, which are drawn uniformly."""

SQUARE: Final = 9 * PIXEL
"""Half of the square's side at scale 1."""
ELLIPSE: Final = (12 * PIXEL, 6 * PIXEL)
"""The ellipse's half-axes at scale 1."""
HEART: Final = 10 * PIXEL
"""The heart's unit at scale 1: it is 2.3 units wide and 2.2 high, and centred on its mass."""


def draw_factors(draws: Draws) -> dict[str, Int64[np.ndarray, "N"]]:
    """The factors' indices, as dSprites counts them: from 0, x to the right, y downwards."""
    return {name: draws.integers(name, 0, values - 1) for name, values in FACTORS.items()}


def render(factors: dict[str, Int64[np.ndarray, "N"]]) -> Bool[np.ndarray, "N S S"]:
    """Whether a pixel's centre lies in the shape.

    The centre of the shape moves by one pixel from index to index, symmetric about the middle.
    """
    shape, scale, orientation, x, y = (factors[name][:, None, None] for name in FACTORS)
    first = (1 - POSITIONS) * PIXEL // 2
    dx = centres() - (first + x * PIXEL)
    dy = centres()[:, None] - (first + y * PIXEL)
    right, down = rotate(dx, dy, orientation * (TURN // ORIENTATIONS))
    # Scale 0.5 + 0.1 s, so lengths at scale 1 are (10 / (5 + s)) times those here.
    right, down = (shrink(along * 10, 5 + scale) for along in (right, down))
    kinds = [shape == kind for kind in range(len(SHAPES))]
    outlines = [outline(right, down) for outline in (_square, _ellipse, _heart)]
    return np.select(kinds, outlines, default=np.False_)


def _square(x: Numbers, y: Numbers) -> Bool[np.ndarray, "..."]:
    return np.maximum(np.abs(x), np.abs(y)) <= SQUARE


def _ellipse(x: Numbers, y: Numbers) -> Bool[np.ndarray, "..."]:
    long, short = ELLIPSE
    return (x * short) ** 2 + (y * long) ** 2 <= (long * short) ** 2


def _heart(x: Numbers, y: Numbers) -> Bool[np.ndarray, "..."]:
    """(x^2 + y^2 - 1)^3 <= x^2 y^3, with y upwards."""
    most = HEART * 3 // 2  # farther away is outside, and sixth powers would not fit 64 bits
    lift = HEART * 75 // 256  # from the curve's origin to its centre of mass
    x, up = np.clip(x, -most, most), np.clip(lift - y, -most, most)
    return (x**2 + up**2 - HEART**2) ** 3 <= x**2 * up**3 * HEART


def _draw(draws: Draws, *, target: str) -> Drawing:
    factors = draw_factors(draws)
    white = render(factors).astype(np.uint8) * np.uint8(255)
    location = factors["x"] // 2
    orientation = factors["orientation"] * 2 // 5
    return Drawing(
        images=np.repeat(white[..., None], 3, axis=3),
        targets=location if target == "location" else orientation,
    )


def draw_sprites_loc() -> Drawing:
    """The sprites with their horizontal location in 16 bins."""
    return draw_all("sprites", lambda draws: _draw(draws, target="location"))


def draw_sprites_ori() -> Drawing:
    """The same sprites with their orientation in 16 bins."""
    return draw_all("sprites", lambda draws: _draw(draws, target="orientation"))
