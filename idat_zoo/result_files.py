"""The files of results: checks of their schema, the quick reading of many, and missing ones."""

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from idat_zoo.errors import ZooError
from idat_zoo.file_names import RECIPE_FILE, RESULT_FILE

SCHEMA_VERSION = 1
MOST_NAMED = 5
CONFUSION = b'"confusion": '
EDITED = (
    "It is not as it was written. Take it from where it was made, or remove its folder and train "
    "it anew."
)


def check_schema(path: Path, content: bytes) -> None:
    """Refuse what is no result of a schema that is known here. Raises: ZooError."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        state = "is damaged, and no JSON document" if content.strip() else "is empty"
        raise ZooError(f"'{path}' {state}.", hint=EDITED) from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise ZooError(f"'{path}' is not a result of idat-zoo: it has no schema_version.")
    if version > SCHEMA_VERSION:
        raise ZooError(
            f"'{path}' has schema {version}; this idat-zoo reads up to {SCHEMA_VERSION}.",
            hint="Upgrade idat-zoo.",
        )


def without_confusions(content: bytes) -> bytes:
    """The JSON with empty confusions, from the first on that holds more than numbers as it is."""
    parts, place = [], 0
    while (start := content.find(CONFUSION, place)) >= 0:
        start += len(CONFUSION)
        end = content.find(b"}", start)  # metrics end with their confusion
        if end < 0 or content.find(b'"', start, end) >= 0:
            break
        parts += [content[place:start], b"[]"]
        place = end
    return b"".join([*parts, content[place:]])


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause Python's garbage collector, which would walk all results again and again."""
    runs = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if runs:
            gc.enable()


def result_paths(folders: Sequence[Path]) -> list[Path]:
    """The path of every result.json at or below the folders, in order.

    Raises: ZooError if a folder is not there, or there is no result.
    """
    if gone := [str(place) for place in folders if not place.exists()]:
        raise ZooError(
            f"there is no file or folder {', '.join(map(repr, gone))}.",
            hint="Name run folders, folders above them, or files result.json.",
        )
    found = {
        path
        for place in folders
        for path in ([place] if place.is_file() else place.rglob(RESULT_FILE))
    }
    if not found:
        begun = find_unfinished(folders)
        raise ZooError(
            f"no {RESULT_FILE} in {', '.join(map(str, folders))}.",
            hint=f"Unfinished runs are there: {named_runs(begun)}." if begun else "",
        )
    return sorted(found)


def find_unfinished(folders: Sequence[Path]) -> list[Path]:
    """The folders of runs without a result at or below the folders, in order of path."""
    recipes = {file for folder in folders for file in folder.rglob(f"seed*/{RECIPE_FILE}")}
    recipes |= {folder / RECIPE_FILE for folder in folders if (folder / RECIPE_FILE).is_file()}
    return sorted(file.parent for file in recipes if not file.with_name(RESULT_FILE).exists())


def named_runs(folders: Sequence[Path]) -> str:
    """The ends of the paths of runs; of many, the first and how many more there are."""
    named = ["/".join(folder.parts[-5:]) for folder in folders[:MOST_NAMED]]
    more = len(folders) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
