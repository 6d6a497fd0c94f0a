"""The mixture of images drawn by formula that the micro networks are pretrained on.

Formula-driven supervision: Kataoka et al., "Pre-training without Natural Images",
arXiv:2101.08515, and "Replacing Labeled Real-image Datasets with Auto-generated Contours",
arXiv:2206.09132. As there, a class is a set of formula parameters and an image one noisy instance
of it. Ours differs in the formulas (closed radial contours as there; Bezier glyphs, textures and
scenes besides), in drawing images during training, so that none is seen twice, and in supervising
position, size, orientation, count and a coarse map of the ink beside the class.

Every draw comes from a Philox generator keyed by (seed, block index), so a block of images is
reproducible from its index alone.

Shape letters: B images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from idat_zoo.backbones.weights.canvas import coverage
from idat_zoo.backbones.weights.contours import contour_classes, contour_ink, draw_contours
from idat_zoo.backbones.weights.draws import Floats, Ints, generator, normal, uniform
from idat_zoo.backbones.weights.glyphs import draw_glyphs, glyph_classes, stroke_ink
from idat_zoo.backbones.weights.labels import (
    CONTOURS,
    GLYPHS,
    LABELS,
    TEXTURES,
    pad_unknown,
    unknown,
)
from idat_zoo.backbones.weights.resolution import change_resolution
from idat_zoo.backbones.weights.scenes import draw_scenes
from idat_zoo.backbones.weights.textures import draw_textures, texture_classes

FINE, COARSE = 24, 8
BLOCK: Final = 256
GLYPH_SHARE, CONTOUR_SHARE, TEXTURE_SHARE, SCENE_SHARE = 116, 64, 24, 52
CLASS_STREAM: Final = 2**63
"""The block index, out of reach of any real one, that keys the draw of the classes."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of images and their labels.

    images [B, 3, 48, 48], labels [B], and maps of the share of each cell that ink covers: ink_map
    [B, 24, 24] and ink_map_coarse [B, 8, 8] of the figures as they lie, shape_map [B, 8, 8] of the
    class's shape, centred, upright and undisturbed. A quantity that an image lacks is `UNKNOWN`.
    """

    images: npt.NDArray[np.uint8]
    labels: dict[str, Ints]
    ink_map: Floats
    ink_map_coarse: Floats
    shape_map: Floats


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
