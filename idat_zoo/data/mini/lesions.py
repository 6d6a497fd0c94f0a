"""`lesions`: procedural tissue, graded by the number and the darkness of its lesions.

It is similar to the tasks of VTAB's specialized group. No medical image was imitated or used.

Shape letters: N images, S side of the image, K figures.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Int64

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
    coverage_maps,
    finish,
    patch_coordinates,
    place,
    rotate,
    smooth_noise,
    tilt,
)

MAX_SCORE: Final = 11
POINTS_PER_GRADE: Final = 3
"""Grade 0 has scores 0-2, grade 1 has 3-5, grade 2 has 6-8, grade 3 has 9-11."""

PALE: Final = (70, 100)
"""How far pale lesions are blended from tissue to the lesion colour, of 256."""
DARK: Final = (165, 205)
"""The same for dark ones: nearer to `PALE` is harder."""
LESION_RADIUS: Final = (5 * PIXEL // 2, 4 * PIXEL)
"""The range of longer half-axes: a wide one hides the number in the darkened area."""
LESION_COLOUR: Final = (70, 25, 45)
GAP: Final = 2 * PIXEL

SPOTS: Final = 5
"""The most bright spots; they and nuclei are distractors."""
SPOT_RADIUS: Final = (3 * PIXEL // 2, 7 * PIXEL // 2)
SPOT_COLOUR: Final = 245
NUCLEI: Final = 24
NUCLEUS_RADIUS: Final = (PIXEL * 3 // 4, PIXEL * 5 // 4)
NUCLEUS_COLOUR: Final = (90, 50, 120)
NUCLEUS_DEPTH: Final = (60, 130)

STRUCTURE: Final = 26
"""How far the tissue's brightness varies over about 16 pixels."""
GRAIN: Final = 12
"""The same over about 4 pixels."""
LIGHT: Final = 25
"""The strongest illumination gradient, from the middle to a corner."""
NOISE: Final = 7
"""The standard deviation of pixel noise."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The numbers of pale and of dark lesions in each image, `[N]`."""

    pale: Int64[np.ndarray, "N"]
    dark: Int64[np.ndarray, "N"]

    @property
    def grade(self) -> Int64[np.ndarray, "N"]:
        """0..3: a pale lesion scores one point, a dark one two, and three points make a grade."""
        grade: Numbers = (self.pale + 2 * self.dark) // POINTS_PER_GRADE
        return grade


def draw_findings(draws: Draws) -> Findings:
    """A uniform score, and a uniform number of dark lesions among those that it allows."""
    score = draws.integers("score", 0, MAX_SCORE)
    dark = draws.integers("dark", 0, 2**16 - 1) * (score // 2 + 1) // 2**16
    return Findings(pale=score - 2 * dark, dark=dark)


def _ellipses(
    draws: Draws, name: str, centre: Int64[np.ndarray, "N K 2"], radius: Int64[np.ndarray, "N K"]
) -> tuple[Int64[np.ndarray, "N S S"], Int64[np.ndarray, "N S S"]]:
    """Coverage and owner of ellipses in random directions, whose longer half-axis is `radius`."""
    count = radius.shape[1]
    corner, x, y = patch_coordinates(centre, reach=int(radius.max(initial=0)))
    angle = draws.integers(f"{name} angle", 0, TURN - 1, count)[..., None, None]
    aspect = draws.integers(f"{name} aspect", ONE * 5 // 8, ONE, count)[..., None, None]
    along, across = rotate(x, y, angle)
    across = across * ONE // aspect
    inside: Bool[np.ndarray, "N K P P"] = along**2 + across**2 < radius[..., None, None] ** 2
    return coverage_maps(inside, corner)


def _tissue(draws: Draws) -> Int64[np.ndarray, "N S S 3"]:
    """Pinkish or brownish ground with low-frequency structure and grain."""
    x, y = np.broadcast_arrays(centres(), centres()[:, None])
    fields = [
        smooth_noise(draws.integers(name, -most, most, side, side), x, y, cell=cell)
        for name, most, side, cell in (
            ("structure", STRUCTURE, 8, 16 * PIXEL),
            ("grain", GRAIN, 32, 4 * PIXEL),
        )
    ]
    brightness = draws.integers("brightness", -25, 15)
    hue = draws.integers("hue", 0, ONE)[:, None]
    pink, brown = np.array([225, 160, 185]), np.array([205, 165, 135])
    ground = blend(pink, brown, hue) + brightness[:, None]
    light = sum(fields) + tilt(draws, strength=LIGHT)
    tissue: Numbers = ground[:, None, None] + light[..., None]
    return tissue


def draw_figures(
    draws: Draws, findings: Findings
) -> tuple[Int64[np.ndarray, "N S S"], Bool[np.ndarray, "N S S"]]:
    """How far lesions and spots replace the tissue, 0..256, and whether it is a lesion there.

    No two of them touch.
    """
    slots = MAX_SCORE + SPOTS
    slot = np.arange(slots)
    lesions = (findings.pale + findings.dark)[:, None]
    spots = draws.integers("spots", 0, SPOTS)[:, None]
    is_lesion, is_spot = slot < lesions, (slot >= MAX_SCORE) & (slot < MAX_SCORE + spots)
    radius = np.select(
        [is_lesion, is_spot],
        [
            draws.integers("lesion radius", *LESION_RADIUS, slots),
            draws.integers("spot radius", *SPOT_RADIUS, slots),
        ],
    )
    depth = np.where(
        slot < findings.dark[:, None],
        draws.integers("dark depth", *DARK, slots),
        draws.integers("pale depth", *PALE, slots),
    )
    cover, owner = _ellipses(draws, "figure", place(draws, radius, gap=GAP), radius)
    image = np.arange(len(cover))[:, None, None]
    return cover * depth[image, owner] // ONE, is_lesion[image, owner] & (cover > 0)


def _nuclei(draws: Draws) -> Int64[np.ndarray, "N S S"]:
    """How far nuclei replace the tissue, 0..256."""
    radius = draws.integers("nucleus radius", *NUCLEUS_RADIUS, NUCLEI)
    centre = draws.integers("nuclei", 0, SIZE * PIXEL - 1, NUCLEI, 2)
    cover, _ = _ellipses(draws, "nucleus", centre, radius)
    depth: Numbers = draws.integers("nucleus depth", *NUCLEUS_DEPTH)[:, None, None]
    return cover * depth // ONE


def draw(draws: Draws) -> Drawing:
    """The images of some draws, with their labels."""
    findings = draw_findings(draws)
    pixels = blend(_tissue(draws), np.array(NUCLEUS_COLOUR), _nuclei(draws)[..., None])
    share, is_lesion = draw_figures(draws, findings)
    colour = np.where(is_lesion[..., None], np.array(LESION_COLOUR), SPOT_COLOUR)
    pixels = blend(pixels, colour, share[..., None])
    return Drawing(images=finish(draws, pixels, noise=NOISE), targets=findings.grade)


def draw_lesions() -> Drawing:
    """The tissue with its grade as label, 0..3."""
    return draw_all("lesions", draw)
