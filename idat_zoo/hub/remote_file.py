"""A file of a dataset repository that is read in place: only the parts that are read are sent."""

import io
from dataclasses import dataclass
from typing import Any

from idat_zoo.errors import HubError
from idat_zoo.hub.download import resolve
from idat_zoo.hub.references import HubReference
from idat_zoo.hub.requests import plain_errors

BYTES_PER_REQUEST = 8 * 2**20
"""How many bytes one request asks for."""


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file of a dataset repository at one commit. Reading a part of it requests that part alone.

    Reading raises HubError.
    """

    commit: str
    stream: io.BufferedReader


def open_remote(repo: str, revision: str, file: str) -> RemoteFile:
    """Open a file of a dataset repository, at the commit that its revision names now.

    Raises: HubError.
    """
    from huggingface_hub import HfFileSystem

    place = resolve(HubReference(repo=repo, revision=revision, subfolder=file, kind="dataset"))
    assert place.revision is not None
    path = f"datasets/{repo}@{place.revision}/{file}"
    with plain_errors(place):
        opened = HfFileSystem(skip_instance_cache=True).open(path, cache_type="none")
    return RemoteFile(
        commit=place.revision, stream=io.BufferedReader(_Remote(opened, place), BYTES_PER_REQUEST)
    )


class _Remote(io.RawIOBase):
    """The unbuffered stream below a `RemoteFile`: each read is one request."""

    def __init__(self, file: Any, place: HubReference) -> None:  # an HfFileSystemFile
        self._file, self._place = file, place

    def readinto(self, buffer: Any, /) -> int:  # a writable buffer
        """Fill the buffer from the current position; returns how many bytes were read."""
        with plain_errors(self._place):
            content = self._file.read(len(buffer))
        if len(content) > len(buffer):
            raise HubError(f"the Hub sends all of '{self._place}' where a part was asked for.")
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the current position, without a request."""
        place: int = self._file.seek(offset, whence)
        return place

    def readable(self) -> bool:
        """Always True."""
        return True

    def seekable(self) -> bool:
        """Always True."""
        return True
