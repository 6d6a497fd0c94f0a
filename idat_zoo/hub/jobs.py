"""Jobs of Hugging Face: submitted by the Hub's own library, and listed by their labels."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idat_zoo.errors import HubError, UsageError
from idat_zoo.hub.references import HubReference
from idat_zoo.hub.requests import patiently, plain_errors

LOG_IN = "`hf auth login`, or HF_TOKEN."
ENDED = {"COMPLETED", "CANCELED", "ERROR", "DELETED"}
"""The stages that a job does not leave."""
SCRIPTS = {".py", ".sh", ".yaml", ".yml", ".toml"}
"""The endings of words that the Hub's library takes for files."""


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder of a bucket, and where a job sees it; '' is the whole bucket."""

    bucket: str
    folder: str
    path: str
    read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a job runs, and on what.

    `package` is what `uv` installs, and `words` are a command of it. `with_token` gives the job the
    user's token as a secret. `timeout` is a number with s, m, h or d.
    """

    name: str
    package: str
    words: Sequence[str]
    flavor: str
    timeout: str
    mounts: Sequence[Mount]
    labels: Mapping[str, str]
    variables: Mapping[str, str]
    with_token: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as the Hub lists it. `stage` is the Hub's word, and `message` what it says of it."""

    id: str
    url: str
    stage: str
    message: str
    labels: Mapping[str, str]
    has_ended: bool


def find_account(given: str | None) -> str:
    """The account that pays: the given one, or else the one that is logged in.

    Raises: HubError if no one is logged in.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise HubError("no one is logged in to the Hub, which jobs need.", hint=LOG_IN)
    if given is not None:
        return given
    with plain_errors(HubReference(repo="me", kind="account")):
        return str(patiently(HfApi(library_name="idat-zoo").whoami)["name"])


def list_jobs(account: str, label: tuple[str, str]) -> list[Job]:
    """The jobs of an account that have a label, also ended ones, the newest first.

    Raises: HubError.
    """
    from huggingface_hub import HfApi

    api, (key, value) = HfApi(library_name="idat-zoo"), label
    with plain_errors(_jobs_of(account)):
        found = patiently(lambda: list(api.list_jobs(namespace=account, labels={key: value})))
    found.sort(key=lambda one: one.created_at.timestamp() if one.created_at else 0, reverse=True)
    jobs = [_as_job(one) for one in found]
    return [one for one in jobs if one.labels.get(key) == value]


def check_words(words: Sequence[str]) -> None:
    """Check that the Hub's library passes words to a job as they are.

    If a word names a file here, the library uploads it, and gives the job the file's new place in
    its stead; a word that ends like a script and names no file it refuses.

    Raises: UsageError.
    """
    for word in words:
        if Path(word).is_file():
            raise UsageError(
                f"'{word}' is a file here, which huggingface_hub would send in place of the word.",
                hint="Call it from another folder.",
            )
        if Path(word).suffix in SCRIPTS:
            raise UsageError(f"'{word}' is a word that huggingface_hub takes for a file.")


def submit(order: Order, account: str) -> Job:
    """Submit a job that an account pays for. It is not repeated, as a lost answer may be a job.

    Raises: HubError.
    """
    from huggingface_hub import HfApi, Volume, get_token

    script, *rest = order.words
    volumes = [
        Volume(
            type="bucket",
            source=one.bucket,
            mount_path=one.path,
            path=one.folder or None,
            read_only=one.read_only,
        )
        for one in order.mounts
    ]
    with plain_errors(_jobs_of(account)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is experimental")
        return _as_job(
            HfApi(library_name="idat-zoo").run_uv_job(
                script,
                script_args=rest,
                dependencies=[order.package],
                env=dict(order.variables),
                secrets={"HF_TOKEN": get_token()} if order.with_token else None,
                flavor=order.flavor,
                timeout=order.timeout,
                name=order.name,
                labels=dict(order.labels),
                volumes=volumes,
                namespace=account,
            )
        )


def _jobs_of(account: str) -> HubReference:
    return HubReference(repo=account, kind="job")


def _as_job(found: Any) -> Job:  # the library's JobInfo
    return Job(
        id=found.id,
        url=found.url,
        stage=str(found.status.stage),
        message=found.status.message or "",
        labels=found.labels or {},
        has_ended=str(found.status.stage) in ENDED,
    )
