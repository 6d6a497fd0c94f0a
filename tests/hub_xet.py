"""The Hub's Xet store as a folder: what the client's own library writes at a `local://` address.

Which file has which name there is read from its shards, whose layout is the library's own business
(hf_xet 1.8). Where that has changed, `LayoutError` says so, and tests are skipped.
"""

import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

TAG = b"HFRepoMetaData\0"
HEADER = 48
RECORD = 48
LAST_FILE = b"\xff" * 32
WITH_VERIFICATION, WITH_SHA256 = 1 << 31, 1 << 30


class LayoutError(Exception):
    """The store does not look as it did."""


class LocalStore:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"local://{folder}"

    def files(self) -> dict[str, tuple[str, int]]:
        """Name and size of every file in the store, by its SHA-256.

        Raises: LayoutError.
        """
        found: dict[str, tuple[str, int]] = {}
        for sha256, name, size in self._entries():
            if sha256:
                found[sha256] = (name, size)
        return found

    def sizes(self) -> dict[str, int]:
        """The size of every file in the store, by its name; those of buckets have no SHA-256.

        Raises: LayoutError.
        """
        return {name: size for _, name, size in self._entries()}

    def _entries(self) -> Iterator[tuple[str, str, int]]:
        shards = list(self.folder.rglob("*.mdb"))
        if not shards and any(self.folder.iterdir()):
            raise LayoutError("hf_xet wrote no shards (*.mdb) into its store")
        for shard in shards:
            try:
                yield from _files_of(shard.read_bytes())
            except struct.error:
                raise LayoutError(f"hf_xet's shard {shard.name} ends too early") from None

    def write(self, content: bytes) -> str:
        """Put a file into the store, by the client's own library; its name there."""
        import hf_xet

        session = hf_xet.XetSession()
        with session.new_upload_commit(endpoint=self.url) as commit:
            handle = commit.start_upload_bytes(content, sha256=hf_xet.SKIP_SHA256)
        return str(handle.result().xet_info.hash)

    def read(self, name: str, size: int) -> bytes:
        """A file's bytes, by the client's own library.

        Raises: LayoutError.
        """
        import hf_xet

        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "content"
            session = hf_xet.XetSession()
            with session.new_file_download_group(endpoint=self.url) as group:
                group.start_download_file(hf_xet.XetFileInfo(name, size), str(target))
            content = target.read_bytes()
        if len(content) != size:
            raise LayoutError(f"hf_xet's store gives {len(content)} bytes, its shard says {size}")
        return content


def _files_of(shard: bytes) -> Iterator[tuple[str, str, int]]:
    """SHA-256, name and size of a shard's files; '' where it has no SHA-256.

    Each is a record of its name, flags and count; so many of segments; as many of verification if
    it has those; and one of its SHA-256.
    """
    if not shard.startswith(TAG):
        raise LayoutError("hf_xet's shards begin with another tag")
    place = HEADER
    while True:
        name = shard[place : place + 32]
        flags, segments = struct.unpack_from("<II", shard, place + 32)
        if name == LAST_FILE:
            return
        place += RECORD
        if segments * RECORD > len(shard) - place:
            raise LayoutError("hf_xet's shards count their segments elsewhere")
        sizes = [
            struct.unpack_from("<I", shard, place + RECORD * i + 36)[0] for i in range(segments)
        ]
        place += RECORD * segments * (2 if flags & WITH_VERIFICATION else 1)
        sha256 = ""
        if flags & WITH_SHA256:
            sha256 = _in_hex(shard[place : place + 32])
            place += RECORD
        yield sha256, _in_hex(name), sum(sizes)


def _in_hex(name: bytes) -> str:
    """As the Hub writes it: four numbers of eight bytes, the lowest byte first."""
    return "".join(f"{part:016x}" for part in struct.unpack("<4Q", name))
