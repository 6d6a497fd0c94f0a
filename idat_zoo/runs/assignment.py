"""What a worker process is given before its first turn."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from idat_zoo.runs.turn import Terms
from idat_zoo.specs import Plugin
from idat_zoo.switches import Switches


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """All that a worker must know before its first turn.

    `threads` is the number of threads that it computes with. `plugins` are the files to load first,
    as recipes record them; `jobs` is the number of workers.
    """

    device: str
    switches: Switches
    stack: int | None
    jobs: int
    threads: int
    plugins: Mapping[Path, Plugin]
    terms: Terms
