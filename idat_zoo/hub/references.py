"""References to places on the Hugging Face Hub: their grammar, parsed and checked."""

import re
from contextlib import suppress
from dataclasses import dataclass

from idat_zoo.errors import UsageError

PREFIXES = ("hub:", "hf://", "https://huggingface.co/", "https://hf.co/")
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class HubReference:
    """A place in a model repository: `hub:ORG/NAME[@REV][/SUBFOLDER]`.

    `asked` is the branch or tag that a person gave, if `revision` was resolved from it. `kind` is
    `dataset` for a place in a dataset repository; checkpoints are in model repositories only.
    Errors name buckets, jobs and accounts in this form, too, by `bucket`, `job` and `account`.
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
        """Whether the revision is a commit, and not a branch or tag, which may move."""
        return self.revision is not None and COMMIT.fullmatch(self.revision) is not None


def parse_reference(text: str) -> HubReference | None:
    """Parse `hub:…`, an `hf://` address or a web address of the Hub; None for any other text.

    Raises: UsageError for a text that begins like one of these but does not follow the Hub's
    grammar, or does not name a model repository.
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


def check_repo_name(repo: str, *, kind: str = "model") -> None:
    """Check that a text may be the name of a repository of a kind. Raises: UsageError."""
    from huggingface_hub import parse_hf_uri

    with suppress(ValueError):
        found = parse_hf_uri(f"hf://{'' if kind == 'model' else f'{kind}s/'}{repo}")
        if (found.type, found.id) == (kind, repo):
            return
    raise UsageError(f"'{repo}' is no name of a {kind} repository.", hint="Expected ORG/NAME")
