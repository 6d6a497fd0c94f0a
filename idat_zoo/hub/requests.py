"""Requests to the Hub: repeated where that may help, and failing with one plain sentence."""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from idat_zoo.errors import HubError, way_to_write
from idat_zoo.hub.references import HubReference

WAITS = (1.0, 2.0, 4.0)
"""Seconds between the tries of a request that fails because the Hub is busy."""
PATIENCE = 20.0
"""Seconds after which no request is tried again; the Hub's library repeats some by itself."""
SILENCE = 60.0
"""Seconds without a byte after which a request fails, unless HF_HUB_DOWNLOAD_TIMEOUT is set."""
HINTS = {
    401: "`hf auth login`, or HF_TOKEN.",
    402: "Add credit to the account, then repeat the command.",
}
"""What to do about a refusal, by its status."""
SIGNED = re.compile(r"(https?://[^\s'\"?]+)\?[^\s'\"]+")
T = TypeVar("T")


def patiently(call: Callable[[], T]) -> T:
    """Call a function, and repeat it while the Hub is busy or its answer is lost.

    It must be safe to call it twice. Raises: what the last call raises.
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
    """Set a timeout on every request; without it the Hub's library may wait for ever."""
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


@contextmanager
def plain_errors(reference: HubReference, *, logged: int = logging.ERROR) -> Iterator[None]:
    """Turn errors of the Hub's library into a HubError of one sentence.

    The library's log messages below the level `logged` are suppressed. Raises: HubError.
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
    except errors.BucketNotFoundError:
        raise HubError(
            f"the Hub has no bucket '{reference.repo}', or it is private.",
            hint=f"`hf buckets create {reference.repo} --private` makes it.",
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise HubError(
            f"the Hub refused '{reference}': {_refusal(error)}", hint=HINTS.get(status, "")
        ) from None
    except HTTPError as error:
        raise HubError(
            f"the Hub gives no answer for '{reference}': {first_line(error)}",
            hint="Repeat the command; what was done is not done again.",
        ) from None
    except RuntimeError as error:  # a large file that could not be moved; its cause says why
        told = f"{first_line(error)} {first_line(error.__cause__)}".strip()
        raise HubError(f"the Hub refused '{reference}': {told}") from None
    except (OSError, ValueError, errors.RevisionResolutionError) as error:
        way = way_to_write(error, other="another HF_HOME") if isinstance(error, OSError) else ""
        if way:
            raise HubError(
                f"'{reference}' cannot be kept in the Hub's cache: {first_line(error)}", hint=way
            ) from None
        raise HubError(
            f"cannot reach '{reference}': {first_line(error)}",
            hint="Offline, only what was downloaded before can be used.",
        ) from None


def _refusal(error: Any) -> str:  # an HfHubHTTPError
    """Why the Hub refused, in one line; of a bad request, the library's own says nothing."""
    told = first_line(error).removesuffix(":")
    said = str(error.server_message or "").strip().splitlines()
    return f"{told}: {said[0]}" if said and error.response.status_code in (400, 402) else told


def first_line(error: BaseException | None) -> str:
    """The first line of an error, without the signatures of addresses in it, which are secret."""
    lines = str(error or "").strip().splitlines() or [type(error).__name__ if error else ""]
    return SIGNED.sub(r"\1", lines[0])
