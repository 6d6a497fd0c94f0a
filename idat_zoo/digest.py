"""The digest of a JSON document, its last member, by which an edit by hand or damage is found.

It is the SHA-256 of the document without it and without white space, so it does not change when a
file is indented anew. It is no signature: who edits a document can compute it anew.
"""

import re
from hashlib import sha256
from pathlib import Path

WHITE = b" \t\r\n"
MEMBER = re.compile(rb',\s*"digest"\s*:\s*"([^"]*)"\s*\}\s*')
PIECE = 2**16
"""The bytes that are hashed at a time: the C library keeps no larger blocks, which are slow."""


def with_digest(content: bytes) -> bytes:
    """An indented JSON object of at least one member, and its digest as the last one."""
    body = content.rstrip().removesuffix(b"}").rstrip()
    return b'%b,\n  "digest": "%b"\n}\n' % (body, _digest(body, len(body)))


def digest_fits(content: bytes) -> bool:
    """Whether JSON ends with its digest, or with none."""
    place = content.rfind(b",")
    member = MEMBER.fullmatch(content, max(place, 0))
    return member is None or member[1] == _digest(content, place)


def edited_in_words(path: Path) -> str:
    """What is said of a file whose digest does not fit."""
    return f"'{path}' was edited: its digest is not that of its content"


def without_digest(content: bytes) -> bytes:
    """The JSON without the digest that it ends with, or as it is."""
    place = content.rfind(b",")
    return content[:place] + b"}" if MEMBER.fullmatch(content, max(place, 0)) else content


def _digest(content: bytes, end: int) -> bytes:
    """The digest, in hexadecimal, of an object whose closing brace belongs at `end`."""
    digest = sha256()
    for start in range(0, end, PIECE):
        digest.update(content[start : min(start + PIECE, end)].translate(None, WHITE))
    digest.update(b"}")
    return digest.hexdigest().encode()
