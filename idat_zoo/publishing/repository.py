"""The repository that runs are published in: the results it holds, and where each run lies."""

import json
from collections.abc import Mapping
from hashlib import sha256

from idat_zoo import files
from idat_zoo.checkpoint.config import CONFIG_FILE, parse_document
from idat_zoo.checkpoint.index import Entry, Index, parse_index
from idat_zoo.errors import HubError, UsageError, ZooError
from idat_zoo.file_names import RESULT_FILE
from idat_zoo.hub.download import fetch
from idat_zoo.hub.head import Head
from idat_zoo.hub.references import HubReference
from idat_zoo.results import Result, load_result

ROOT = ""


def read_published(head: Head) -> dict[str, Result] | None:
    """The results in a repository by their folders; None if it has no runs yet.

    Raises: HubError for published runs that are damaged, or of a newer schema.
    """
    if CONFIG_FILE not in head.files:
        return None
    reference = HubReference(repo=head.repo, revision=head.commit)
    folder = fetch(reference, (CONFIG_FILE,))
    content, path = (folder / CONFIG_FILE).read_bytes(), folder / CONFIG_FILE
    if not _is_config(content):
        return None
    try:
        index = parse_index(parse_document(content, path), path)
        root = fetch(reference, (RESULT_FILE,), below=index is not None)
        places = list(index.checkpoints) if index else [ROOT]
        return {place: load_result(root / place / RESULT_FILE) for place in places}
    except HubError:
        raise
    except ZooError as error:
        raise HubError(
            f"'{head.repo}' holds something else than published runs: {error.message}",
            hint="Choose another --repo.",
        ) from None


def _is_config(content: bytes) -> bool:
    """Whether a config.json was written by idat-zoo; other libraries use that name too."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("library") == "idat-zoo"


def digests(published: Mapping[str, Result]) -> dict[str, str]:
    """The SHA-256 by path of the files that published results name, and of their index."""
    named = {
        join(place, name): digest
        for place, result in published.items()
        for name, digest in result.files.items()
    }
    if published and ROOT not in published:
        named[CONFIG_FILE] = sha256(index_of(published)).hexdigest()
    return named


def index_of(results: Mapping[str, Result]) -> bytes:
    """The config.json above several runs, as bytes."""
    index = Index(
        checkpoints={
            place: Entry(
                task=result.recipe.task.id, seed=result.seed, recipe_hash=result.recipe_hash
            )
            for place, result in sorted(results.items())
        }
    )
    return files.dump_json(index.model_dump(mode="json"))


def check_same(repo: str, there: Result, ours: Result) -> None:
    """Refuse to replace the run at the root by another than itself. Raises: UsageError."""
    if place_of(there) != place_of(ours):
        raise UsageError(
            f"'{repo}' holds another run at its root: {place_of(there)}.",
            hint="Choose another --repo, or publish both together in a new one.",
        )


def check_kin(results: Mapping[str, Result]) -> None:
    """Refuse runs of several pairs or families in one repository. Raises: UsageError."""
    kinds = {(r.recipe.pair.name, r.recipe.adapter.label) for r in results.values()}
    if len(kinds) > 1:
        told = ", ".join(sorted("/".join(kind) for kind in kinds))
        raise UsageError(f"these runs do not belong in one repository: {told}.")


def place_of(result: Result) -> str:
    """The subfolder of a run in a repository with several."""
    return f"{result.recipe.task.id}/{result.recipe_hash[:8]}-seed{result.seed}"


def join(place: str, name: str) -> str:
    """The path of a file in a run's subfolder; '' is the root."""
    return f"{place}/{name}" if place else name
