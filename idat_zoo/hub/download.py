"""Downloads from a model repository: named files of one commit, kept in the Hub's local cache."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from idat_zoo.errors import HubError
from idat_zoo.hub.references import HubReference
from idat_zoo.hub.requests import patiently, plain_errors

LARGEST = {
    ".json": 16 * 2**20,
    ".md": 16 * 2**20,
    ".safetensors": 4 * 2**30,
    ".toml": 16 * 2**20,
    ".yaml": 16 * 2**20,
}
"""The largest size that is downloaded, in bytes, by suffix; other kinds of files never are."""
WITHOUT_BAR = 20 * 2**20
"""Downloads up to this size, in bytes, show no progress bar."""


def resolve(reference: HubReference) -> HubReference:
    """The same place with its revision replaced by the commit that it names now.

    A reference that names a commit already is returned without a request. Offline, or where the Hub
    cannot be reached, the commit that was seen last is taken.

    Raises: HubError.
    """
    if reference.pinned:
        return reference
    from huggingface_hub import HfApi

    api = HfApi(library_name="idat-zoo")
    with plain_errors(reference, logged=logging.WARNING):  # of the commit that was seen last
        revision = patiently(
            lambda: api.resolve_revision(
                reference.repo, revision=reference.revision, repo_type=reference.kind
            )
        )
    asked = reference.revision or "main"
    return replace(reference, revision=revision.resolved, asked=asked)


def fetch(reference: HubReference, names: tuple[str, ...], *, below: bool = False) -> Path:
    """Download the files of these names from a pinned reference, and return their folder.

    Names that the repository does not have are left out; the folder does not exist if it has none.
    With `below`, the files of these names in all folders below are downloaded too. What is in the
    Hub's local cache is not requested again.

    Raises: HubError, also for a file that is larger than `LARGEST` allows.
    """
    from huggingface_hub import snapshot_download

    if folder := find_cached(reference, names, below=below):
        return folder
    wanted = _snapshot(reference, names, below=below)
    with plain_errors(reference):
        with bars(shown=False):
            found = patiently(lambda: _sizes(wanted))
        _check_sizes(reference, found)
        large = sum(file.file_size or 0 for file in found) > WITHOUT_BAR
        with bars(shown=large):
            root = patiently(lambda: snapshot_download(**wanted))
    return Path(root) / reference.subfolder


def find_cached(
    reference: HubReference, names: tuple[str, ...], *, below: bool = False
) -> Path | None:
    """As `fetch`, but without any request; None if a file is not in the Hub's local cache."""
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

    wanted = _snapshot(reference, names, below=below)
    try:
        # Without the list of files, what others cached of this commit would pass for all of it.
        get_cached_repo_tree(reference.repo, revision=reference.revision)
        root = snapshot_download(**wanted, local_files_only=True)
    except (CachedRepoTreeNotFoundError, LocalEntryNotFoundError):
        return None
    return Path(root) / reference.subfolder


def _snapshot(reference: HubReference, names: tuple[str, ...], *, below: bool) -> Any:
    """The arguments of `snapshot_download`."""
    assert reference.pinned, "resolved first, so that all files are of one commit"
    assert {Path(name).suffix for name in names} <= LARGEST.keys(), "only data is downloaded"
    place = f"{reference.subfolder}/" if reference.subfolder else ""
    depths = ("", "*/") if below else ("",)
    return {
        "repo_id": reference.repo,
        "revision": reference.revision,
        "allow_patterns": [f"{place}{depth}{name}" for depth in depths for name in names],
        "library_name": "idat-zoo",
    }


@contextmanager
def bars(*, shown: bool) -> Iterator[None]:
    """Let the Hub's library draw its progress bars, or keep it from that."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    if shown or constants.HF_HUB_DISABLE_PROGRESS_BARS is not None:  # a person has decided
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _sizes(wanted: Any) -> list[Any]:  # DryRunFileInfo
    """The files that would be downloaded. Raises: what downloading them would raise."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import DryRunError

    try:
        return list(snapshot_download(**wanted, dry_run=True))
    except DryRunError as error:
        raise error.__cause__ or error from None


def _check_sizes(reference: HubReference, found: Iterable[Any]) -> None:
    """Refuse files that are larger than `LARGEST` allows. Raises: HubError."""
    for file in found:
        limit = LARGEST[Path(file.filename).suffix]
        if (file.file_size or 0) > limit:
            raise HubError(
                f"'{file.filename}' of '{reference}' has {file.file_size:,} bytes; up to {limit:,} "
                "are fetched."
            )
