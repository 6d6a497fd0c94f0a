"""Options of reading images, and the listener that is told about progress."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from idat_zoo.places import default_cache

DEFAULT_MEGAPIXELS = 64.0
SPARE_BYTES = 10 * 10**9


def usable_cores() -> int:
    """The number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Listener:
    """Receives the progress of reading and notes for the user. This base class ignores them."""

    def decoding(self, what: str, done: int, total: int) -> None:
        """Called when `done` of the `total` images of the list `what` are decoded."""

    def fetching(self, what: str, done: int, total: int) -> None:
        """Called when `done` of the `total` bytes of `what` are downloaded."""

    def note(self, text: str) -> None:
        """Called with a sentence for the user."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Options of reading images. None of them changes a pixel.

    `cache` is the folder of decoded images. Images above `max_megapixels` count as unreadable.
    `skip_corrupt` leaves unreadable images out, where the task's suite allows that. `stream_test`
    decodes test images whenever they are needed, instead of keeping them decoded on disk; this
    happens without the option, too, where less than `spare_bytes` would stay free. `workers` is the
    number of threads.
    """

    cache: Path = field(default_factory=default_cache)
    max_megapixels: float = DEFAULT_MEGAPIXELS
    skip_corrupt: bool = False
    stream_test: bool = False
    spare_bytes: int = SPARE_BYTES
    workers: int = field(default_factory=usable_cores)
