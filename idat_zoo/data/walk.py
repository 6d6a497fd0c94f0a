"""A folder of images with all that is below it, listed in the same way by every command."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from idat_zoo.data.image_file import SUFFIXES

UNREAD_SUFFIXES = (
    *(".jp2", ".j2k", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".dcm"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)
"""Suffixes of image formats that are not read. Such files are faults; they are never skipped."""

SYSTEM_NAMES = (
    *("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"),
    *("system volume information", "lost+found"),
)
"""Files and folders that operating systems create and that do not begin with a dot."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Folder:
    """The contents of a folder, sorted by name, without hidden files and folders.

    `name` is its path below the folder where the walk began, '' for that folder itself. `images`
    and `others` are names of files. `faults` are paths that could not be walked, with the reason.
    """

    name: str
    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    folders: list["Folder"] = field(default_factory=list)
    faults: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def last_name(self) -> str:
        """The last part of `name`."""
        return self.name.rpartition("/")[2]

    @property
    def has_images(self) -> bool:
        """Whether there is an image in it or in a folder below."""
        return any(here.images for here in self.within())

    @property
    def is_deep(self) -> bool:
        """Whether there is an image in a folder below it."""
        return any(below.has_images for below in self.folders)

    def path(self, name: str) -> str:
        """The path of a file in it, below the folder where the walk began."""
        return f"{self.name}/{name}" if self.name else name

    def within(self) -> Iterator["Folder"]:
        """The folder and all folders below it, in order."""
        waiting = [self]
        while waiting:
            here = waiting.pop()
            yield here
            waiting += reversed(here.folders)

    def image_paths(self) -> list[str]:
        """The paths of all images in it and below."""
        return [here.path(name) for here in self.within() for name in here.images]

    def other_paths(self) -> list[str]:
        """The paths of all files in it and below that are not images by their suffix."""
        return [here.path(name) for here in self.within() for name in here.others]

    def all_faults(self) -> list[tuple[Path, str]]:
        """The faults of the folder and of all folders below."""
        return [fault for here in self.within() for fault in here.faults]


def walk(root: Path) -> Folder:
    """List a folder and all folders below it. Hidden ones are skipped, links are not followed."""
    top = Folder(name="")
    waiting = [top]
    while waiting:
        here = waiting.pop()
        try:
            entries = sorted(os.scandir(root / here.name), key=lambda entry: entry.name)
        except OSError as error:
            here.faults.append((root / here.name, f"cannot be read: {error.strerror}"))
            continue
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if not entry.is_dir():
                (here.images if is_image(entry.name) else here.others).append(entry.name)
            elif entry.is_symlink():
                fault = "is a link to a folder; links are not followed"
                here.faults.append((root / here.path(entry.name), fault))
            else:
                here.folders.append(Folder(name=here.path(entry.name)))
        waiting += here.folders
    return top


def is_hidden(name: str) -> bool:
    """Whether a name begins with a dot or is one of the operating system's."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def is_image(name: str) -> bool:
    """Whether a name has the suffix of an image format, even of one that is not read."""
    return Path(name).suffix.lower() in (*SUFFIXES, *UNREAD_SUFFIXES)
