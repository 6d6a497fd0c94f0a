"""Documents of result.json: what equal runs have in common, and edits that are consistent."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idat_zoo import files
from idat_zoo.digest import with_digest

MAY_DIFFER = ("seconds", "images_per_second", "peak_memory", "finished", "digest")
"""What may differ between equal runs: times, memory, and the digest, which depends on them."""


def common(content: bytes) -> dict[str, Any]:
    """The document of a result.json without what may differ between equal runs."""
    document: dict[str, Any] = json.loads(content)
    return {name: value for name, value in document.items() if name not in MAY_DIFFER}


def as_written(document: Mapping[str, Any]) -> bytes:
    """The result.json of a document, as a run would have written it: with its own digest."""
    own = {name: value for name, value in document.items() if name != "digest"}
    return with_digest(files.dump_json(own))


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write a result.json that a run could have written."""
    path.write_bytes(as_written(document))
