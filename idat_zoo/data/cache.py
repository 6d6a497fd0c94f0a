"""The cache of decoded images on disk, so that a list is decoded once. Loads no torch.

    <cache>/pixels/<key>/entry.json     what the pixels are of; written last
                         pixels.u8      uint8 [N, S, S, 3], memory-mapped; not there if streamed

An entry is written in a folder `<key>.part` under a lock and then renamed: neither a process that
is killed nor a second process leaves a partial entry.

Shape letters: N images, S input size.
"""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import UInt8
from pydantic import ValidationError

from idat_zoo import files
from idat_zoo.data.pixel_file import map_pixels
from idat_zoo.data.reading import Listener
from idat_zoo.values import Frozen

ENTRY_FILE, PIXELS_FILE = "entry.json", "pixels.u8"
PART = ".part"
OWN = re.compile(rf"[0-9a-f]{{32}}(?:{re.escape(PART)})?")
"""The names of the cache's own folders; other things in its place are never touched."""


class Entry(Frozen):
    """The record of a list's pixels at one size.

    `what` is the task's id and the split. `pixels_sha256` is over each image's own SHA-256.
    `unreadable` maps an index in the list to the reason; if it is not empty there are no pixels.
    `kept` says whether pixels.u8 was written. `made` is in seconds since 1970.
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
        """The id of the task that the list belongs to."""
        return self.what.partition(" ")[0]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[N, S, S, 3]."""
        return (self.count, self.size, self.size, 3)

    @property
    def num_bytes(self) -> int:
        """The bytes of its pixels on disk."""
        return self.count * 3 * self.size**2 if self.kept else 0


class Cache:
    """The entries below one folder, which need not exist yet."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "pixels"

    def find(self, key: str) -> Entry | None:
        """The complete entry of a key, or None."""
        place = self.folder / key
        try:
            entry = Entry.model_validate_json((place / ENTRY_FILE).read_bytes())
            if entry.kept and (place / PIXELS_FILE).stat().st_size != entry.num_bytes:
                return None
        except (OSError, ValidationError):
            return None
        return entry

    def open(self, key: str, entry: Entry) -> UInt8[np.ndarray, "N S S 3"]:
        """The pixels of an entry that keeps them, memory-mapped.

        Raises: FileNotFoundError where another process has removed the entry.
        """
        return map_pixels(self.folder / key / PIXELS_FILE, entry.shape)

    @contextmanager
    def making(self, key: str, listener: Listener) -> Iterator[Path]:
        """A new folder to fill, which `finish` renames; other processes wait meanwhile.

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
        """Write the entry into a filled folder and rename the folder to the key."""
        files.write_whole(part / ENTRY_FILE, files.dump_json(entry.model_dump(mode="json")))
        place = part.with_name(part.name.removesuffix(PART))
        shutil.rmtree(place, ignore_errors=True)  # an entry that was not whole, or kept no pixels
        part.rename(place)

    def entries(self) -> dict[str, Entry]:
        """All complete entries by key, the newest first."""
        names = [path.name for path in self._folders() if not path.name.endswith(PART)]
        found = {name: entry for name in names if (entry := self.find(name)) is not None}
        return dict(sorted(found.items(), key=lambda item: -item[1].made))

    def remove(self, key: str) -> int:
        """Remove an entry and return its bytes; 0, and it stays, while a process is writing it.

        Processes that have mapped its pixels keep them.
        """
        return self._remove(self.folder / key)

    def sweep(self) -> int:
        """Remove what killed processes and older versions left, and return its bytes.

        A folder that a process is filling stays, and so does anything that is not the cache's own.
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


def free_bytes(folder: Path) -> int:
    """The free bytes of the disk that a folder is on, or would be on."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        if folder == folder.parent:
            raise
        return free_bytes(folder.parent)


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())
