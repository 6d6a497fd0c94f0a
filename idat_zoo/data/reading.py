"""How images are read, and who hears of it."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from idat_zoo.places import default_cache

DEFAULT_MEGAPIXELS = 64.0
SPARE_BYTES = 10 * 10**9


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Listener:
    """Hears how reading goes; this one says nothing."""

    def decoding(self, what: str, done: int, total: int) -> None:
        """Of `total` images of a list, `done` are decoded."""

    def fetching(self, what: str, done: int, total: int) -> None:
        """Of `total` bytes, `done` are here."""

    def note(self, text: str) -> None:
        """Something a person may want to know."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a person may choose about reading images; none of it changes a pixel.

    `skip_corrupt` leaves out images that cannot be read, where a task's counts are not fixed.
    `stream_test` decodes test images as they are asked for, instead of keeping them decoded on
    disk; that happens by itself where keeping them would leave less than `spare_bytes` free.
    """

    cache: Path = field(default_factory=default_cache)
    max_megapixels: float = DEFAULT_MEGAPIXELS
    skip_corrupt: bool = False
    stream_test: bool = False
    spare_bytes: int = SPARE_BYTES
    workers: int = field(default_factory=usable_cores)
