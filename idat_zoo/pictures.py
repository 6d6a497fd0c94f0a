"""Image files to be classified, given one by one or as folders, and why some cannot be read."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from idat_zoo.data.walk import walk
from idat_zoo.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The name and bytes of an image file. `fault` says why it cannot be read, or is ''."""

    name: str
    content: bytes = b""
    fault: str = ""


def find_pictures(places: Iterable[Path]) -> list[Path]:
    """The paths of image files: those that are given, and those in given folders and below.

    Folders are searched as for training. A subfolder that cannot be read is in the list, too;
    `open_picture` then gives the reason as a fault.

    Raises: DataError for a path that does not exist, and for a folder without images.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            top = walk(place)
            below = [place / name for name in top.image_paths()]
            below += [path for path, _ in top.all_faults()]
            if not below:
                raise DataError(f"there are no images in folder '{place}' or below.")
            found += below
        elif place.exists():
            found.append(place)
        else:
            raise DataError(f"there is no image or folder '{place}'.")
    return found


def open_picture(path: Path) -> Picture:
    """Read an image file; the picture has a fault if that fails."""
    if path.is_dir():
        why = "is a link to" if path.is_symlink() else "is"
        return Picture(name=str(path), fault=f"{why} a folder that cannot be walked")
    try:
        return Picture(name=str(path), content=path.read_bytes())
    except OSError as error:
        return Picture(name=str(path), fault=f"cannot be read: {error.strerror}")
