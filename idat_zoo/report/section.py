"""Our part of a card that people write in too: a section between two marks.

    <!-- idat-zoo: begin SHA-256 -->
    …
    <!-- idat-zoo: files {"result.json": "SHA-256", …} -->
    <!-- idat-zoo: end -->

The first mark has the digest of what was written, so that what a person changed there is seen. The
record names published files that no result.json names. Two marks with nothing between them are an
invitation to write there.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MARKED = re.compile(
    r"^<!-- idat-zoo: begin(?: ([0-9a-f]{64}))? -->\s*\n(.*?)^<!-- idat-zoo: end -->[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
RECORD = re.compile(r"^<!-- idat-zoo: files (\{.*\}) -->\s*$", re.MULTILINE)
INVITATION = ("<!-- idat-zoo: begin -->", "<!-- idat-zoo: end -->")
KEYS = (
    "library_name",
    "pipeline_tag",
    "license",
    "license_name",
    "base_model",
    "base_model_relation",
    "model-index",
)
"""The metadata that are ours, as the section is. Of `tags` some are; all others are a person's."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """What stands between the marks of a card, and what people wrote around it.

    `intact`: it is as it was written, and so are the metadata that are ours.
    """

    before: str
    after: str
    digest: str
    intact: bool
    files: Mapping[str, str]


def find_section(text: str, metadata: Mapping[str, Any]) -> Section | None:
    """The section of a card; None where there is none, or there are several."""
    text = text.replace("\r\n", "\n")
    marked = list(MARKED.finditer(text))
    if len(marked) != 1:
        return None
    digest, inside = marked[0][1] or "", marked[0][2]
    record = RECORD.search(inside)
    return Section(
        before=text[: marked[0].start()],
        after=text[marked[0].end() :],
        digest=digest,
        intact=_digest(inside, metadata) == (digest or _digest("", {})),
        files=_files(record[1]) if record else {},
    )


def write_section(text: str, metadata: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """The section with its marks. A text that holds marks of its own would not be found again."""
    record = json.dumps(dict(sorted(files.items()))).replace(">", "\\u003e")
    inside = f"{text}\n<!-- idat-zoo: files {record} -->\n"
    return f"<!-- idat-zoo: begin {_digest(inside, metadata)} -->\n{inside}{INVITATION[1]}"


def _files(record: str) -> dict[str, str]:
    """The record's files and their SHA-256; none where a person has broken it."""
    try:
        found = json.loads(record)
    except ValueError:
        return {}
    return {path: sha256 for path, sha256 in found.items() if isinstance(sha256, str)}


def _digest(inside: str, metadata: Mapping[str, Any]) -> str:
    own = {key: metadata[key] for key in KEYS if key in metadata}
    told = json.dumps([inside.strip(), own], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()
