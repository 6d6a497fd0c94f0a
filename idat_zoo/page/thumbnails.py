"""The images that changed sides between two runs, small, with what each side calls them."""

import base64
import io
from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image

from idat_zoo.report.compare import ChangedImage, TaskComparison
from idat_zoo.values import Frozen

MOST = 24
"""Images of a task that are shown of each kind: gained, and lost."""
SIDE = 96
"""Pixels of the longer side of a thumbnail; smaller images are enlarged by whole factors."""
Pictures = Mapping[int, np.ndarray]
"""The index of a test image -> its pixels `[H, W, 3]`, uint8."""


class Thumbnail(Frozen):
    """An image as a data URI, with its true class and those that A and B predict, in words."""

    source: str
    index: int
    seed: int
    target: str
    first: str
    second: str


def shown_images(one: TaskComparison) -> tuple[list[ChangedImage], list[ChangedImage]]:
    """The images of a task that are shown: right with B alone, and right with A alone."""
    gained = [image for image in one.images if image.second == image.target]
    lost = [image for image in one.images if image.first == image.target]
    return _first_of_each(gained), _first_of_each(lost)


def _first_of_each(images: Iterable[ChangedImage]) -> list[ChangedImage]:
    """The first entry of each image, up to `MOST`: with several seeds an image may have several."""
    by_index: dict[int, ChangedImage] = {}
    for image in images:
        by_index.setdefault(image.index, image)
    return list(by_index.values())[:MOST]


def thumbnails(
    images: Iterable[ChangedImage], pictures: Pictures, names: Mapping[int, str]
) -> list[Thumbnail]:
    """The thumbnails of images; `names` are those of classes by their index, where known."""
    return [
        Thumbnail(
            source=_as_uri(pictures[image.index]),
            index=image.index,
            seed=image.seed,
            target=names.get(image.target, str(image.target)),
            first=names.get(image.first, str(image.first)),
            second=names.get(image.second, str(image.second)),
        )
        for image in images
    ]


def _as_uri(pixels: np.ndarray) -> str:
    """Pixels `[H, W, 3]` as a PNG in a data URI."""
    image = Image.fromarray(pixels)
    longer = max(image.size)
    if longer > SIDE:
        image.thumbnail((SIDE, SIDE))
    elif factor := SIDE // longer:
        size = (image.width * factor, image.height * factor)
        image = image.resize(size, Image.Resampling.NEAREST)
    written = io.BytesIO()
    image.save(written, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
