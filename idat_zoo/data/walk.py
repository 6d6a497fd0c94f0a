"""The one walk over folders of images: what training takes, `predict` and `verify` see too."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from idat_zoo.data.image_file import SUFFIXES

UNREAD_SUFFIXES = (
    *(".jp2", ".j2k", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".dcm"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)
"""Images by their names, of formats that are not read: told one by one, never passed over."""

SYSTEM_NAMES = (
    *("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"),
    *("system volume information", "lost+found"),
)
"""What operating systems leave in folders, without a dot before it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Folder:
    """What lies in a folder, in order of name and without hidden things.

    `name` is its path below the folder where the walk began, '' of that one itself. `images` and
    `others` are names of files; `faults` say of a place below why it was not walked.
    """

    name: str
    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    folders: list["Folder"] = field(default_factory=list)
    faults: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def last_name(self) -> str:
        """Its own name, without the folders above."""
        return self.name.rpartition("/")[2]

    @property
    def has_images(self) -> bool:
        """Whether an image lies in it or below."""
        return any(here.images for here in self.within())

    @property
    def is_deep(self) -> bool:
        """Whether an image lies in a folder below it."""
        return any(below.has_images for below in self.folders)

    def path(self, name: str) -> str:
        """Where something in it lies, below the folder where the walk began."""
        return f"{self.name}/{name}" if self.name else name

    def within(self) -> Iterator["Folder"]:
        """It and all folders below, in order."""
        waiting = [self]
        while waiting:
            here = waiting.pop()
            yield here
            waiting += reversed(here.folders)

    def image_paths(self) -> list[str]:
        """All images in it and below."""
        return [here.path(name) for here in self.within() for name in here.images]

    def other_paths(self) -> list[str]:
        """All files in it and below that are no images by name."""
        return [here.path(name) for here in self.within() for name in here.others]

    def all_faults(self) -> list[tuple[Path, str]]:
        """What could not be walked in it and below."""
        return [fault for here in self.within() for fault in here.faults]


def walk(root: Path) -> Folder:
    """A folder with all that lies below; hidden things are passed over, links not followed."""
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
    """Whether people do not see a file or folder: by a dot before it, or the system's own."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def is_image(name: str) -> bool:
    """Whether a name is an image's, of a format that is read or not."""
    return Path(name).suffix.lower() in (*SUFFIXES, *UNREAD_SUFFIXES)
