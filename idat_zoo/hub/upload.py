"""An upload to a model repository: all files in one commit, on a head that nobody else moved."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from idat_zoo.errors import HubError
from idat_zoo.hub.head import Head, read_head
from idat_zoo.hub.references import HubReference
from idat_zoo.hub.requests import first_line, patiently, plain_errors

OF_NEW_REPOSITORIES = {".gitattributes"}
"""What the Hub itself puts into a repository."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where files are now. `commit` is '' for a pull request that waits to be merged."""

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
            told = f"is on {there}." if there else f"was not made: {first_line(error)}"
            raise HubError(
                f"the files are uploaded as {commit}, but tag '{tag}' of '{repo}' {told}",
                hint=f"Repeat the command{' with another --tag' if there else ''}.",
            ) from None
