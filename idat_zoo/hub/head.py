"""The head of a model repository: its newest commit, and which files that holds."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from idat_zoo.hub.download import fetch
from idat_zoo.hub.references import HubReference
from idat_zoo.hub.requests import patiently, plain_errors


@dataclass(frozen=True, kw_only=True)
class Head:
    """The newest commit of a repository's main branch; empty if there is no such repository.

    `files` are the digests of the commit's files by path: the SHA-256 of a large file, the Git
    object id of a small one.
    """

    repo: str
    commit: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    def holds(self, path: str, content: bytes) -> bool:
        """Whether the commit has a file at this path with this content."""
        return self.files.get(path) in (hashlib.sha256(content).hexdigest(), _blob_id(content))

    def has_digest(self, path: str, sha256: str) -> bool:
        """Whether the commit's file at this path has this SHA-256; small files are downloaded.

        Raises: HubError.
        """
        if len(self.files[path]) == len(sha256):
            return self.files[path] == sha256
        found = fetch(HubReference(repo=self.repo, revision=self.commit), (path,)) / path
        return hashlib.sha256(found.read_bytes()).hexdigest() == sha256


def read_head(repo: str) -> Head:
    """The head of a repository, as far as this user may see it. Raises: HubError."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    with plain_errors(HubReference(repo=repo)):
        try:
            api = HfApi(library_name="idat-zoo")
            found = patiently(lambda: api.model_info(repo, files_metadata=True))
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return Head(repo=repo)
    listed = {
        file.rfilename: (file.lfs.sha256 if file.lfs else file.blob_id) or ""
        for file in found.siblings or []
    }
    return Head(repo=repo, commit=found.sha or "", files=listed)


def _blob_id(content: bytes) -> str:
    """The Git object id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
