"""The Hugging Face Hub: the only file that imports huggingface_hub, and it does so when called."""

import hashlib
import io
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from idat_zoo.errors import HubError, UsageError, WeightsError, way_to_write

WEIGHTS_FILE = "model.safetensors"
PREFIXES = ("hub:", "hf://", "https://huggingface.co/", "https://hf.co/")
WAITS = (1.0, 2.0, 4.0)
"""Seconds between the tries of a request that the Hub is too busy for."""
BLOCK = 8 * 2**20
"""Bytes that are fetched at once of a file of which parts are read."""
PATIENCE = 20.0
"""Seconds after which what failed is not tried again; some requests the library itself repeats."""
SILENCE = 60.0
"""Seconds without a byte until a request fails, where HF_HUB_DOWNLOAD_TIMEOUT says no others."""
COMMIT = re.compile(r"[0-9a-f]{40}")
SIGNED = re.compile(r"(https?://[^\s'\"?]+)\?[^\s'\"]+")
OF_NEW_REPOSITORIES = {".gitattributes"}
"""What the Hub itself puts into a repository."""
LARGEST = {
    ".json": 16 * 2**20,
    ".md": 16 * 2**20,
    ".safetensors": 4 * 2**30,
    ".toml": 16 * 2**20,
}
"""Bytes, by suffix. No config, result, card, recipe or adapter has to be larger."""
WITHOUT_BAR = 20 * 2**20
"""Bytes that are here too soon for a progress bar."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class HubReference:
    """A place in a model repository: `hub:ORG/NAME[@REV][/SUBFOLDER]`.

    `asked` is the revision that a person gave, where another was resolved from it. `kind` is
    `dataset` for places in those, which checkpoints never are.
    """

    repo: str
    revision: str | None = None
    subfolder: str = ""
    asked: str = ""
    kind: str = "model"

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        kind = "" if self.kind == "model" else f"{self.kind}s/"
        return f"hub:{kind}{self.repo}{revision}" + (f"/{self.subfolder}" if self.subfolder else "")

    @property
    def pinned(self) -> bool:
        """Whether it names a commit, which cannot become another one."""
        return self.revision is not None and COMMIT.fullmatch(self.revision) is not None


def parse_reference(text: str) -> HubReference | None:
    """A Hub reference, `hf://` address or web address, by the Hub's own grammar; None for others.

    Raises: UsageError for what begins like one and is none, or names no model.
    """
    if not text.startswith(PREFIXES):
        return None
    from huggingface_hub import parse_hf_uri

    address = f"hf://{text.removeprefix('hub:')}" if text.startswith("hub:") else text
    try:
        found = parse_hf_uri(address)
    except ValueError as error:
        raise UsageError(
            f"'{text}' is no reference to the Hub: {error}",
            hint="Expected hub:ORG/NAME[@REVISION][/SUBFOLDER]",
        ) from None
    if found.type != "model":
        raise UsageError(f"'{text}' names a {found.type}; adapters are in model repositories.")
    subfolder = found.path_in_repo.strip("/")
    if {"", ".", ".."} & set(subfolder.split("/")) and subfolder:
        raise UsageError(f"'{text}' leads out of its repository.")
    return HubReference(repo=found.id, revision=found.revision, subfolder=subfolder)


def check_repo_name(repo: str) -> None:
    """Raises: UsageError for what cannot be a repository's name."""
    place = parse_reference(f"hub:{repo}")
    if place is None or place.repo != repo:
        raise UsageError(f"'{repo}' is no name of a repository.", hint="Expected ORG/NAME")


def resolve(reference: HubReference) -> HubReference:
    """The same place at the commit that its revision names now. A pinned one makes no request.

    Offline, or where the Hub cannot be reached, the commit that was seen last is taken.

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
    """The folder of a pinned reference, with those files of these names that it has.

    `below`: those of all folders below it too. What is in the Hub's local cache is not asked for
    again. The folder need not exist, where there are none of these files.

    Raises: HubError, also for a file that is larger than any of its kind has to be.
    """
    from huggingface_hub import snapshot_download

    if folder := find_cached(reference, names, below=below):
        return folder
    wanted = _snapshot(reference, names, below=below)
    with plain_errors(reference):
        with _bars(shown=False):
            found = patiently(lambda: _sizes(wanted))
        _check_sizes(reference, found)
        large = sum(file.file_size or 0 for file in found) > WITHOUT_BAR
        with _bars(shown=large):
            root = patiently(lambda: snapshot_download(**wanted))
    return Path(root) / reference.subfolder


def find_cached(
    reference: HubReference, names: tuple[str, ...], *, below: bool = False
) -> Path | None:
    """As `fetch`, without any request; None where something is not in the Hub's local cache."""
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
    """What `snapshot_download` is asked for."""
    assert reference.pinned, "resolved first, so that all files are of one commit"
    place = f"{reference.subfolder}/" if reference.subfolder else ""
    depths = ("", "*/") if below else ("",)
    return {
        "repo_id": reference.repo,
        "revision": reference.revision,
        "allow_patterns": [f"{place}{depth}{name}" for depth in depths for name in names],
        "library_name": "idat-zoo",
    }


@contextmanager
def _bars(*, shown: bool) -> Iterator[None]:
    """Whether the Hub's library may draw its progress bars."""
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
    """What is to be fetched. Raises: what the Hub's library would raise if it fetched it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import DryRunError

    try:
        return list(snapshot_download(**wanted, dry_run=True))
    except DryRunError as error:
        raise error.__cause__ or error from None


def _check_sizes(reference: HubReference, found: Iterable[Any]) -> None:
    """Raises: HubError for a file that is larger than any of its kind has to be."""
    for file in found:
        limit = LARGEST[Path(file.filename).suffix]
        if (file.file_size or 0) > limit:
            raise HubError(
                f"'{file.filename}' of '{reference}' has {file.file_size:,} bytes; up to {limit:,} "
                "are fetched."
            )


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file of a dataset repository at one commit, of which only what is read is fetched.

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
        commit=place.revision, stream=io.BufferedReader(_Remote(opened, place), BLOCK)
    )


class _Remote(io.RawIOBase):
    """What `RemoteFile` reads from: each read is one request."""

    def __init__(self, file: Any, place: HubReference) -> None:  # an HfFileSystemFile
        self._file, self._place = file, place

    def readinto(self, buffer: Any, /) -> int:  # a writable buffer
        """Fill the buffer, or what there is left of it."""
        with plain_errors(self._place):
            content = self._file.read(len(buffer))
        if len(content) > len(buffer):
            raise HubError(f"the Hub sends all of '{self._place}' where a part was asked for.")
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Stand elsewhere; costs nothing."""
        place: int = self._file.seek(offset, whence)
        return place

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where files are now. `commit` is '' for a pull request that waits to be merged."""

    url: str
    commit: str


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


def upload(
    head: Head,
    contents: Mapping[str, bytes],
    *,
    without: Iterable[str] = (),
    message: str,
    private: bool = True,
    tag: str = "",
    create_pr: bool = False,
) -> Published:
    """Put files into a model repository and take those `without` out, all in one commit on a head.

    The repository is made where there is none, private unless it is to be public; one that exists
    stays as visible as it is. What is there already makes no new commit, so it may be repeated; a
    Hub that is too busy is asked again.

    Raises: HubError; the repository is then as it was, but where only the tag is taken.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api, repo, parent = HfApi(library_name="idat-zoo"), head.repo, head.commit
    without = frozenset(without)
    conflict = HubError(
        f"'{repo}' was changed by someone else meanwhile; nothing was uploaded.",
        hint="Look at what changed, then repeat the command.",
    )

    def commit() -> Published:
        operations: list[Any] = [
            CommitOperationAdd(path_in_repo=path, path_or_fileobj=content)
            for path, content in sorted(contents.items())
        ]
        operations += [CommitOperationDelete(path_in_repo=path) for path in sorted(without)]
        try:
            made = api.create_commit(
                repo,
                operations,
                commit_message=message,
                parent_commit=parent,
                create_pr=create_pr,
            )
        except HfHubHTTPError as error:
            if error.response.status_code != 412:
                raise
            now = read_head(repo)
            if create_pr or not _holds(now, contents, without):
                raise conflict from None
            # A try before this one did it, and its answer was lost.
            return Published(url=f"{api.endpoint}/{repo}/commit/{now.commit}", commit=now.commit)
        return Published(url=made.pr_url or made.commit_url, commit="" if create_pr else made.oid)

    with plain_errors(HubReference(repo=repo)):
        if not parent:
            patiently(lambda: api.create_repo(repo, private=private, exist_ok=True))
            new = read_head(repo)
            if new.files.keys() - OF_NEW_REPOSITORIES and not _holds(new, contents, without):
                raise conflict
            parent = new.commit
        made = commit() if create_pr else patiently(commit)  # a second one would be another request
        if tag and not create_pr:
            _tag(api, repo, tag, made.commit)
    return made


def _holds(head: Head, contents: Mapping[str, bytes], without: frozenset[str]) -> bool:
    """Whether a head has these very files, and none of those that were to go."""
    return not (head.files.keys() & without) and all(
        head.holds(path, content) for path, content in contents.items()
    )


def _blob_id(content: bytes) -> str:
    """Git's name of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _tag(api: Any, repo: str, tag: str, commit: str) -> None:  # an HfApi
    """Name a commit; one that has the tag already is fine, another one is not."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        patiently(lambda: api.create_tag(repo, tag=tag, revision=commit))
    except HTTPError as error:
        there = ""
        if isinstance(error, HfHubHTTPError) and error.response.status_code == 409:
            with plain_errors(HubReference(repo=repo, revision=tag)):
                there = patiently(lambda: api.repo_info(repo, revision=tag)).sha or ""
        if there != commit:
            told = f"is on {there}." if there else f"was not made: {_first_line(error)}"
            raise HubError(
                f"the files are uploaded as {commit}, but tag '{tag}' of '{repo}' {told}",
                hint=f"Repeat the command{' with another --tag' if there else ''}.",
            ) from None


def patiently(call: Callable[[], T]) -> T:
    """Call what may be called twice again while the Hub is busy or an answer is lost.

    Raises: what the last call raises.
    """
    from httpx2 import ConnectError, TransportError
    from huggingface_hub.errors import HfHubHTTPError, RevisionResolutionError

    began = time.monotonic()
    for wait in WAITS:
        try:
            return call()
        except (HfHubHTTPError, TransportError, RevisionResolutionError) as error:
            cause = error.__cause__ if isinstance(error, RevisionResolutionError) else error
            asked = "0"
            if isinstance(cause, HfHubHTTPError):
                asked = cause.response.headers.get("Retry-After", asked)
                passes = cause.response.status_code == 429 or cause.response.status_code >= 500
            else:
                passes = isinstance(cause, TransportError) and not isinstance(cause, ConnectError)
            wait = max(wait, float(asked) if asked.isdecimal() else 0.0)
            if not passes or time.monotonic() - began + wait > PATIENCE:
                raise
            time.sleep(wait)
    return call()


@cache
def _end_silence() -> None:
    """Let requests fail where the Hub's library would wait for an answer for ever."""
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils import _http  # whose factory may be one that a program set

    make = _http._GLOBAL_CLIENT_FACTORY
    longest = SILENCE
    if "HF_HUB_DOWNLOAD_TIMEOUT" in os.environ:
        longest = max(constants.HF_HUB_DOWNLOAD_TIMEOUT, constants.HF_HUB_ETAG_TIMEOUT)

    def limit(request: Any) -> None:  # httpx2's Request
        given = request.extensions.get("timeout") or {}
        request.extensions["timeout"] = {
            name: min(given.get(name) or longest, longest)
            for name in ("connect", "read", "write", "pool")
        }

    def client() -> Any:  # httpx2's Client
        made = make()
        made.event_hooks = {"request": [*made.event_hooks["request"], limit]}
        return made

    set_client_factory(client)


@dataclass(frozen=True, kw_only=True)
class Card:
    """A repository's README: the metadata that the Hub reads, and the Markdown below it."""

    metadata: dict[str, Any]
    text: str


def read_card(content: str) -> Card:
    """A card as the Hub's library reads it. Raises: HubError where it cannot."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # a card may have no metadata
    try:
        card: Any = ModelCard(content)  # typed as any kind of card
        return Card(metadata=card.data.to_dict(), text=card.text)
    except (YAMLError, ValueError, TypeError, KeyError) as error:
        raise HubError(f"the metadata of a card cannot be read: {_first_line(error)}") from None


def write_card(
    name: str, fields: Mapping[str, Any], scores: Iterable[Mapping[str, Any]], text: str
) -> str:
    """A card with its model-index, which was read back and says what was meant.

    Scores that agree in task, data set, config, split and revision are one entry of a model-index
    and would share the first one's names, arguments and source.

    Raises: HubError naming what would come back as something else.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    meant = [EvalResult(**score) for score in scores]
    data = ModelCardData(model_name=name, eval_results=meant, **fields)
    content = f"---\n{data.to_yaml()}\n---\n{text}"
    read_card(content)
    card: Any = ModelCard(content)  # typed as any kind of card
    found = {**card.data.to_dict(), "model_name": card.data.model_name, "text": card.text}
    expected = {**fields, "model_name": name, "text": text}
    differing = {
        key: (expected.get(key), found.get(key))
        for key in expected.keys() | found.keys() - {"model-index"}
        if expected.get(key) != found.get(key)
    }
    back = card.data.eval_results or []
    if len(back) != len(meant):
        differing["model-index"] = (f"{len(meant)} scores", f"{len(back)}")
    for place, (one, other) in enumerate(zip(meant, back, strict=False)):
        differing |= {
            f"{key} of score {place + 1}": (value, vars(other)[key])
            for key, value in vars(one).items()
            if value != vars(other)[key]
        }
    if differing:
        told = [f"{key}: {one!r} becomes {other!r}" for key, (one, other) in differing.items()]
        raise HubError(f"the card would not be read back as it is meant: {'; '.join(told[:4])}.")
    return content


@contextmanager
def plain_errors(reference: HubReference, *, logged: int = logging.ERROR) -> Iterator[None]:
    """What the Hub's library raises becomes one sentence, and it logs nothing below a level.

    Raises: HubError.
    """
    from httpx2 import HTTPError
    from huggingface_hub import errors

    logging.getLogger("huggingface_hub").setLevel(logged)
    _end_silence()
    try:
        yield
    except errors.GatedRepoError:
        raise HubError(
            f"'{reference.repo}' is gated, and access was not granted.",
            hint="Ask for access on its web page, then `hf auth login`.",
        ) from None
    except errors.RepositoryNotFoundError:
        raise HubError(
            f"the Hub has no repository '{reference.repo}', or it is private.",
            hint="For a private one: `hf auth login`, or HF_TOKEN.",
        ) from None
    except errors.RevisionNotFoundError:
        raise HubError(f"'{reference.repo}' has no revision '{reference.revision}'.") from None
    except errors.RemoteEntryNotFoundError:
        raise HubError(f"'{reference}' has no such file.") from None
    except errors.HfHubHTTPError as error:
        hint = "`hf auth login`, or HF_TOKEN." if error.response.status_code == 401 else ""
        raise HubError(f"the Hub refused '{reference}': {_first_line(error)}", hint=hint) from None
    except HTTPError as error:
        raise HubError(
            f"the Hub gives no answer for '{reference}': {_first_line(error)}",
            hint="Repeat the command; what was done is not done again.",
        ) from None
    except RuntimeError as error:  # a large file that could not be moved; its cause says why
        told = f"{_first_line(error)} {_first_line(error.__cause__)}".strip()
        raise HubError(f"the Hub refused '{reference}': {told}") from None
    except (OSError, ValueError, errors.RevisionResolutionError) as error:
        way = way_to_write(error, other="another HF_HOME") if isinstance(error, OSError) else ""
        if way:
            raise HubError(
                f"'{reference}' cannot be kept in the Hub's cache: {_first_line(error)}", hint=way
            ) from None
        raise HubError(
            f"cannot reach '{reference}': {_first_line(error)}",
            hint="Offline, only what was downloaded before can be used.",
        ) from None


def _first_line(error: BaseException | None) -> str:
    """Without what an address was signed with."""
    lines = str(error or "").strip().splitlines() or [type(error).__name__ if error else ""]
    return SIGNED.sub(r"\1", lines[0])


def weights_repo(timm_name: str, tag: str) -> str:
    """Where timm keeps a backbone's weights on the Hub."""
    return f"timm/{timm_name}.{tag}"


def cached_weights(timm_name: str, tag: str) -> Path | None:
    """The weights' file in the Hub's local cache, without any request."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(weights_repo(timm_name, tag), WEIGHTS_FILE)
    return Path(found) if isinstance(found, str) else None


def fetch_weights(timm_name: str, tag: str) -> Path:
    """The weights' file, downloaded unless cached. Only safetensors.

    Raises: WeightsError when the Hub cannot be reached or has no such file.
    """
    from huggingface_hub import hf_hub_download

    repo = weights_repo(timm_name, tag)
    try:
        with plain_errors(HubReference(repo=repo)):
            return Path(patiently(lambda: hf_hub_download(repo, WEIGHTS_FILE)))
    except HubError as error:
        raise WeightsError(
            f"cannot download '{WEIGHTS_FILE}': {error.message}",
            hint=f"On a connected machine: hf download {repo} {WEIGHTS_FILE}, then bring the Hub's "
            "cache folder here (HF_HOME).",
        ) from error
