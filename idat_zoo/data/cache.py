"""Decoded images on disk, so that a list is decoded once.

    <cache>/pixels/<key>/entry.json     what the pixels are of; written last
                         pixels.u8      uint8 [N, S, S, 3], memory-mapped; not there if streamed

An entry is made in a folder beside, under a lock, and takes its place by one rename: a process
that is killed, or a second one, leaves nothing half-made.

Shape letters: N images, S input size.
"""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import UInt8
from pydantic import ValidationError
from torch import Tensor

from idat_zoo import files
from idat_zoo.data.reading import Listener
from idat_zoo.recipe import Frozen

ENTRY_FILE, PIXELS_FILE = "entry.json", "pixels.u8"
PART = ".part"
OWN = re.compile(rf"[0-9a-f]{{32}}(?:{re.escape(PART)})?")
"""Names of the folders that are the cache's; others that lie there are not touched."""


class Entry(Frozen):
    """What is known of a list's pixels at one size.

    `pixels_sha256` is over each image's own SHA-256. `unreadable` (place in the list -> reason) is
    empty, or else there are no pixels. `kept` says whether the pixels lie beside. `made` is in
    seconds since 1970.
    """

    what: str
    count: int
    size: int
    decoder: str
    pixels_sha256: str
    unreadable: dict[int, str]
    kept: bool
    made: int

    @property
    def task(self) -> str:
        """The id of the task that the list is of."""
        return self.what.partition(" ")[0]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[N, 3, S, S]."""
        return (self.count, 3, self.size, self.size)

    @property
    def num_bytes(self) -> int:
        """The size of its pixels on disk."""
        return self.count * 3 * self.size**2 if self.kept else 0


class Cache:
    """The entries below one folder, which need not exist yet."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "pixels"

    def find(self, key: str) -> Entry | None:
        """An entry that is whole, or None."""
        place = self.folder / key
        try:
            entry = Entry.model_validate_json((place / ENTRY_FILE).read_bytes())
            if entry.kept and (place / PIXELS_FILE).stat().st_size != entry.num_bytes:
                return None
        except (OSError, ValidationError):
            return None
        return entry

    def open(self, key: str, entry: Entry) -> UInt8[Tensor, "N 3 S S"]:
        """The pixels of an entry that keeps them, memory-mapped; writing to them alters no file."""
        return map_pixels(self.folder / key / PIXELS_FILE, entry.shape)

    @contextmanager
    def making(self, key: str, listener: Listener) -> Iterator[Path]:
        """A new folder to fill, which `finish` puts in its place; other processes wait meanwhile.

        Raises: OSError where the cache cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        waiting = "another process is decoding the same images; waiting for it"
        with files.alone(self.folder / f"{key}.lock", lambda: listener.note(waiting)):
            part = self.folder / (key + PART)
            try:
                shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
                part.mkdir()
                yield part
            finally:
                shutil.rmtree(part, ignore_errors=True)

    def finish(self, part: Path, entry: Entry) -> None:
        """Put a filled folder in its place."""
        files.write_whole(part / ENTRY_FILE, files.dump_json(entry.model_dump(mode="json")))
        place = part.with_name(part.name.removesuffix(PART))
        shutil.rmtree(place, ignore_errors=True)  # an entry that was not whole, or kept no pixels
        part.rename(place)

    def entries(self) -> dict[str, Entry]:
        """All whole entries by key, the newest first."""
        names = [path.name for path in self._folders() if not path.name.endswith(PART)]
        found = {name: entry for name in names if (entry := self.find(name)) is not None}
        return dict(sorted(found.items(), key=lambda item: -item[1].made))

    def remove(self, key: str) -> int:
        """Remove an entry; returns how many bytes, 0 where a process is making it anew just now.

        Processes that have it open keep their pixels.
        """
        return self._remove(self.folder / key)

    def sweep(self) -> int:
        """Remove what killed processes and older versions left; returns how many bytes.

        What a process is filling just now stays, and so does all that is not the cache's own.
        """
        whole = self.entries()
        return sum(self._remove(path) for path in self._folders() if path.name not in whole)

    def _folders(self) -> list[Path]:
        found = self.folder.glob("*")
        return [path for path in found if OWN.fullmatch(path.name) and path.is_dir()]

    def _remove(self, folder: Path) -> int:
        try:
            with FileLock(self.folder / f"{folder.name.removesuffix(PART)}.lock", timeout=0):
                freed = sum(path.stat().st_size for path in folder.glob("*"))
                shutil.rmtree(folder)
        except (Timeout, FileNotFoundError):  # the latter: another process was faster
            return 0
        return freed


def map_pixels(path: Path, shape: tuple[int, int, int, int]) -> UInt8[Tensor, "N 3 S S"]:
    """Pixels of a file as a tensor over private memory: pages are read when they are touched.

    The file has colours last, as Pillow decodes them, and the tensor is a view with colours first.
    """
    count, colours, height, width = shape
    if count == 0:
        return torch.zeros(shape, dtype=torch.uint8)
    stored = (count, height, width, colours)
    pixels = np.memmap(path, dtype=np.uint8, mode="c", shape=stored)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def free_bytes(folder: Path) -> int:
    """What is free on the disk where a folder lies, or will lie."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        if folder == folder.parent:
            raise
        return free_bytes(folder.parent)


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())
