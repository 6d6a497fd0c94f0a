"""The head of a model repository: its newest commit, and which files that holds."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from idat_zoo.hub.download import fetch
from idat_zoo.hub.references import HubReference
from idat_zoo.hub.requests import patiently, plain_errors


@dataclass(frozen=True, kw_only=True)
class Head:
    """The newest commit of a repository's main branch and its files; none where it is not there.

    `files` has what the Hub knows each by: the SHA-256 of a large one, Git's name of another.
    """

    repo: str
    commit: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    def holds(self, path: str, content: bytes) -> bool:
        """Whether it has this very file."""
        return self.files.get(path) in (hashlib.sha256(content).hexdigest(), _blob_id(content))

    def has_digest(self, path: str, sha256: str) -> bool:
        """Whether a file that it has is of this SHA-256; small ones are downloaded to be sure.

        Raises: HubError.
        """
        if len(self.files[path]) == len(sha256):
            return self.files[path] == sha256
        found = fetch(HubReference(repo=self.repo, revision=self.commit), (path,)) / path
        return hashlib.sha256(found.read_bytes()).hexdigest() == sha256


def read_head(repo: str) -> Head:
    """What a repository holds now, as far as one may see it. Raises: HubError."""
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
    """Git's name of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
