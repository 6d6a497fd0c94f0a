"""A drawn task: all its images with their classes, drawn in chunks to bound the memory.

Shape letters: N images, H W image.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Int64, UInt8

from idat_zoo.data.mini.counter import Draws

NUM_IMAGES: Final = 2000
"""800 for train800, then 200 for val200, then 1,000 for test."""
CHUNK: Final = 50


@dataclass(frozen=True)
class Drawing:
    """Images `[N, H, W, 3]` and their classes `[N]`, in the order train800, val200, test.

    `class_names` is empty where classes have no names.
    """

    images: UInt8[np.ndarray, "N H W 3"]
    targets: Int64[np.ndarray, "N"]
    class_names: tuple[str, ...] = ()


def draw_all(
    task: str, draw: Callable[[Draws], Drawing], class_names: Iterable[object] = ()
) -> Drawing:
    """All images of a task; `draw` makes those of one chunk."""
    chunks = [
        draw(Draws(task=task, images=np.arange(start, start + CHUNK)))
        for start in range(0, NUM_IMAGES, CHUNK)
    ]
    return Drawing(
        images=np.concatenate([chunk.images for chunk in chunks]),
        targets=np.concatenate([chunk.targets for chunk in chunks]),
        class_names=tuple(map(str, class_names)),
    )
