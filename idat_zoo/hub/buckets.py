"""A folder in a bucket of the Hub: its files are listed, read and written, each as a whole."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idat_zoo.hub.download import bars
from idat_zoo.hub.references import HubReference
from idat_zoo.hub.requests import patiently, plain_errors


@dataclass(frozen=True, kw_only=True)
class BucketFolder:
    """A folder in a bucket `OWNER/NAME`."""

    bucket: str
    folder: str

    def __str__(self) -> str:
        return f"hf://buckets/{self.bucket}/{self.folder}"

    @property
    def reference(self) -> HubReference:
        """The folder as errors name it."""
        return HubReference(repo=self.bucket, subfolder=self.folder, kind="bucket")


def list_files(place: BucketFolder) -> dict[str, Any]:  # the library's BucketFile
    """The files below a folder, by their paths there; none where it does not exist.

    Raises: HubError, also if there is no such bucket.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RemoteEntryNotFoundError

    api, start = HfApi(library_name="idat-zoo"), f"{place.folder}/"

    def listed() -> list[Any]:
        try:
            return list(api.list_bucket_tree(place.bucket, place.folder, recursive=True))
        except RemoteEntryNotFoundError:
            return []

    with plain_errors(place.reference):
        patiently(lambda: api.bucket_info(place.bucket))
        found = patiently(listed)
    return {
        one.path.removeprefix(start): one
        for one in found
        if one.type == "file" and one.path.startswith(start)
    }


def read_files(place: BucketFolder, files: Mapping[str, Any]) -> dict[str, bytes]:
    """The contents of files that were listed, by their paths. Raises: HubError."""
    from huggingface_hub import HfApi

    api = HfApi(library_name="idat-zoo")
    with tempfile.TemporaryDirectory() as folder, plain_errors(place.reference):
        places = {name: Path(folder) / str(number) for number, name in enumerate(files)}
        wanted: Any = [(file, places[name]) for name, file in files.items()]
        with bars(shown=False):
            patiently(lambda: api.download_bucket_files(place.bucket, wanted))
        return {name: path.read_bytes() for name, path in places.items()}


def write_files(place: BucketFolder, contents: Mapping[str, bytes]) -> None:
    """Write files into a folder, over those of the same names. Raises: HubError."""
    from huggingface_hub import HfApi

    api = HfApi(library_name="idat-zoo")
    added: Any = [(content, f"{place.folder}/{name}") for name, content in contents.items()]
    with plain_errors(place.reference), bars(shown=False):
        patiently(lambda: api.batch_bucket_files(place.bucket, add=added))
