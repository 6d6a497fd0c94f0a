"""An upload to a model repository: all files in one commit, on a head that nobody else moved."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from idat_zoo.errors import HubError
from idat_zoo.hub.head import Head, read_head
from idat_zoo.hub.references import HubReference
from idat_zoo.hub.requests import first_line, patiently, plain_errors

OF_NEW_REPOSITORIES = {".gitattributes"}
"""Files that the Hub puts into every new repository."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """The place of uploaded files. `commit` is '' for a pull request, which is not merged yet."""

    url: str
    commit: str


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
    """Upload files to a model repository and remove those in `without`, in one commit on a head.

    A repository that does not exist is created, private or public; the visibility of an existing
    one is not changed. If the repository has all these files already, there is no new commit, so
    the call may be repeated. While the Hub is busy, requests are repeated.

    Raises: HubError; the repository is then unchanged, unless only the tag could not be set.
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
    """Whether a head has these files with these contents, and none of those to be removed."""
    return not (head.files.keys() & without) and all(
        head.holds(path, content) for path, content in contents.items()
    )


def _tag(api: Any, repo: str, tag: str, commit: str) -> None:  # an HfApi
    """Tag a commit. Raises: HubError if the tag cannot be made, or is on another commit."""
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
            told = f"is on {there}." if there else f"was not made: {first_line(error)}"
            raise HubError(
                f"the files are uploaded as {commit}, but tag '{tag}' of '{repo}' {told}",
                hint=f"Repeat the command{' with another --tag' if there else ''}.",
            ) from None
