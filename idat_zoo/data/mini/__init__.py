"""Five small procedural tasks that stand in for VTAB's groups: code, no downloads.

What is drawn and how each label follows is in docs/mini.md. Everything is integer arithmetic, so
images and labels are the same bytes everywhere.
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
"""Each task's id and what draws it."""
