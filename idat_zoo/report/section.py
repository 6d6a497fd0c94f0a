"""The generated section of a model card, between two marks; people may edit the rest of the card.

    <!-- idat-zoo: begin SHA-256 -->
    …
    <!-- idat-zoo: files {"result.json": "SHA-256", …} -->
    <!-- idat-zoo: end -->

The first mark holds the digest of the generated text, so that edits by people are detected. The
record lists published files that no result.json lists. Two marks with nothing between them ask for
the section to be written there.
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
"""The metadata keys that are generated too. All other keys, and some `tags`, are a person's."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """The section of a card, and the text that people wrote before and after it.

    `intact` means that section and generated metadata are unchanged since they were written.
    """

    before: str
    after: str
    digest: str
    intact: bool
    files: Mapping[str, str]


def find_section(text: str, metadata: Mapping[str, Any]) -> Section | None:
    """The section of a card; None if there is none, or more than one."""
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
    """The section with its marks. `text` must not contain such marks itself."""
    record = json.dumps(dict(sorted(files.items()))).replace(">", "\\u003e")
    inside = f"{text}\n<!-- idat-zoo: files {record} -->\n"
    return f"<!-- idat-zoo: begin {_digest(inside, metadata)} -->\n{inside}{INVITATION[1]}"


def _files(record: str) -> dict[str, str]:
    """The files of the record with their SHA-256; empty if a person has broken the record."""
    try:
        found = json.loads(record)
    except ValueError:
        return {}
    return {path: sha256 for path, sha256 in found.items() if isinstance(sha256, str)}


def _digest(inside: str, metadata: Mapping[str, Any]) -> str:
    own = {key: metadata[key] for key in KEYS if key in metadata}
    content = json.dumps([inside.strip(), own], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()
