"""The index of several checkpoints: a config.json above their folders that names each of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from idat_zoo.checkpoint.config import SCHEMA_VERSION, SEVERAL, checked
from idat_zoo.values import Below, Frozen


class Entry(Frozen):
    """One of several checkpoints of a repository."""

    task: str
    seed: int
    recipe_hash: str


class Index(Frozen):
    """The config.json above several checkpoints, by the paths of their folders below it."""

    schema_version: int = SCHEMA_VERSION
    library: Literal["idat-zoo"] = "idat-zoo"
    checkpoints: dict[Below, Entry]


def parse_index(document: Mapping[str, Any], path: Path) -> Index | None:
    """The index that a config.json is; None where it is a checkpoint's own.

    Raises: CheckpointError.
    """
    return checked(Index, document, path) if SEVERAL in document else None
