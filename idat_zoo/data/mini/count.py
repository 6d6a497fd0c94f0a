"""`count`: how many objects there are, 3 to 10.

It is similar to the tasks of VTAB's structured group. The total area of the objects is drawn before
and independently of their number, so the area gives no information about it.

Shape letters: N images, S side of the image, K objects.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from jaxtyping import Int64

from idat_zoo.data.mini.counter import Draws
from idat_zoo.data.mini.drawing import Drawing, draw_all
from idat_zoo.data.mini.raster import (
    ONE,
    PIXEL,
    TURN,
    Numbers,
    blend,
    centres,
    coverage_maps,
    finish,
    patch_coordinates,
    place,
    root,
    rotate,
    smooth_noise,
    tilt,
)

Points = npt.NDArray[np.bool_]

FEWEST, MOST = 3, 10

INK: Final = (320, 560)
"""The range of all objects' area together, in pixels."""
UNEVEN: Final = 2
"""The largest ratio of two objects' areas in an image."""
GAP: Final = 2 * PIXEL
CONTRAST: Final = (80, 120)
"""The range of the difference in brightness between an object and the ground."""
TINT: Final = 20
"""How far each channel's difference may be from that brightness."""
STRUCTURE: Final = 8
"""How far the background's brightness varies over about 12 pixels."""
LIGHT: Final = 15
"""The strongest illumination gradient, from the middle to a corner."""
NOISE: Final = 3
"""The standard deviation of pixel noise."""


def _disc(x: Numbers, y: Numbers, radius: Numbers) -> Points:
    return x**2 + y**2 <= radius**2


def _square(x: Numbers, y: Numbers, radius: Numbers) -> Points:
    return np.maximum(np.abs(x), np.abs(y)) <= radius * 181 // ONE  # sqrt(1/2) = 181 / 256


def _triangle(x: Numbers, y: Numbers, radius: Numbers) -> Points:
    return np.maximum(y, np.abs(x) * 222 // ONE - y // 2) <= radius // 2  # sqrt(3/4) = 222 / 256


def _ring(x: Numbers, y: Numbers, radius: Numbers) -> Points:
    square = x**2 + y**2
    return (square <= radius**2) & (4 * square >= radius**2)


def _cross(x: Numbers, y: Numbers, radius: Numbers) -> Points:
    far, near = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    return (far <= radius * 243 // ONE) & (near <= radius * 81 // ONE)  # 243^2 + 81^2 = 256^2


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Which points are in a shape of a given outer radius, and the shape's area.

    The area is in thousandths, at radius 1.
    """

    contains: Callable[[Numbers, Numbers, Numbers], Points]
    area: int


SHAPES: Final = {
    "disc": Shape(contains=_disc, area=3142),
    "square": Shape(contains=_square, area=2000),
    "triangle": Shape(contains=_triangle, area=1299),
    "ring": Shape(contains=_ring, area=2356),
    "cross": Shape(contains=_cross, area=2000),
}


def draw_target(draws: Draws) -> Int64[np.ndarray, "N"]:
    """The class: the number of objects less `FEWEST`."""
    return draws.integers("count", 0, MOST - FEWEST)


def draw_objects(
    draws: Draws, count: Int64[np.ndarray, "N"]
) -> tuple[Int64[np.ndarray, "N S S"], Int64[np.ndarray, "N S S"]]:
    """The share of each pixel that objects cover, 0..256, and which object it is."""
    there = np.arange(MOST) < count[:, None]
    weight = draws.integers("weight", ONE, UNEVEN * ONE, MOST) * there
    ink = draws.integers("ink", *INK)[:, None]
    kind = draws.integers("shape", 0, len(SHAPES) - 1, MOST)
    area = ink * weight * PIXEL**2 // weight.sum(axis=1, keepdims=True)
    radius = root(area * 1000 // np.array([shape.area for shape in SHAPES.values()])[kind])
    corner, x, y = patch_coordinates(place(draws, radius, gap=GAP), reach=int(radius.max()))
    angle = draws.integers("angle", 0, TURN - 1, MOST)
    inside = np.zeros((x + y).shape, dtype=np.bool_)
    for number, shape in enumerate(SHAPES.values()):
        chosen = there & (kind == number)
        turned = rotate(x[chosen], y[chosen], angle[chosen][:, None, None])
        inside[chosen] = shape.contains(*turned, radius[chosen][:, None, None])
    return coverage_maps(inside, corner)


def draw(draws: Draws) -> Drawing:
    """The images of some draws, with their labels."""
    target = draw_target(draws)
    cover, owner = draw_objects(draws, target + FEWEST)
    x, y = np.broadcast_arrays(centres(), centres()[:, None])
    lattice = draws.integers("structure", -STRUCTURE, STRUCTURE, 11, 11)
    light = smooth_noise(lattice, x, y, cell=12 * PIXEL) + tilt(draws, strength=LIGHT)
    ground = draws.integers("ground", 70, 185, 3)
    # Where the ground is dark objects are brighter, and the other way round, all in one image.
    sign = np.where(ground.sum(axis=1) < 3 * 128, 1, -1)[:, None]
    step = sign * draws.integers("contrast", *CONTRAST, MOST)
    colour = ground[:, None] + step[..., None] + draws.integers("tint", -TINT, TINT, MOST, 3)
    image = np.arange(len(target))[:, None, None]
    pixels = blend(ground[:, None, None], colour[image, owner], cover[..., None])
    return Drawing(images=finish(draws, pixels + light[..., None], noise=NOISE), targets=target)


def draw_count() -> Drawing:
    """The objects with their number less three as label, 0..7."""
    return draw_all("count", draw, range(FEWEST, MOST + 1))
