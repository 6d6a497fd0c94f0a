"""Five small tasks that are drawn by code, similar to the groups of VTAB.

docs/mini.md says what is drawn and how each label follows from it. All arithmetic is on integers,
so images and labels are the same bytes on every platform.
"""

from collections.abc import Callable
from typing import Final

from idat_zoo.data.mini.count import draw_count
from idat_zoo.data.mini.drawing import Drawing
from idat_zoo.data.mini.lesions import draw_lesions
from idat_zoo.data.mini.sprites import draw_sprites_loc, draw_sprites_ori
from idat_zoo.data.mini.textures import draw_textures

__all__ = ["DRAWERS", "Drawing"]

DRAWERS: Final[dict[str, Callable[[], Drawing]]] = {
    "textures": draw_textures,
    "lesions": draw_lesions,
    "sprites_loc": draw_sprites_loc,
    "sprites_ori": draw_sprites_ori,
    "count": draw_count,
}
"""A task's id -> the function that draws it."""
