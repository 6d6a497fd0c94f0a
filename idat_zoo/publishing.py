"""Finished runs as a repository on the Hub: what goes there, once all about it was checked."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from idat_zoo import files
from idat_zoo.checkpoint import CONFIG_FILE, TENSORS_FILE, load_checkpoint, probe_logits
from idat_zoo.errors import CheckpointError, RunFolderError, UsageError
from idat_zoo.hub import Published, card_metadata, upload
from idat_zoo.report.card import card_fields, card_scores, card_text
from idat_zoo.results import RESULT_FILE, Result, load_result
from idat_zoo.run_folder import PROBE_FILE, RECIPE_FILE, TEACHER_FOLDER

CARD_FILE = "README.md"
NEEDED = (TENSORS_FILE, CONFIG_FILE, RECIPE_FILE, PROBE_FILE)
PROBE_TOLERANCE = 1e-4
"""How far a reload's probe logits may be from those that the run wrote, on another machine."""
LOCAL_PATH = re.compile(r"(?<![\w./-])(?:/(?:home|Users|root|tmp|mnt)/|[A-Z]:\\)\S+")


def publish(
    folders: Sequence[Path],
    repo: str,
    *,
    private: bool = True,
    tag: str = "",
    with_teacher: bool = False,
    create_pr: bool = False,
) -> Published:
    """Check runs and upload them in one commit. Raises: what `prepare` and `upload` raise."""
    contents = prepare(folders, repo, with_teacher=with_teacher)
    return upload(
        repo,
        contents,
        message=f"idat publish: {len(folders)} run{'s' if len(folders) > 1 else ''}",
        private=private,
        tag=tag,
        create_pr=create_pr,
    )


def prepare(folders: Sequence[Path], repo: str, *, with_teacher: bool = False) -> dict[str, bytes]:
    """All files of the repository by their paths in it; one run lies at its root.

    Raises: RunFolderError for a folder without a finished run, or with files that are not its own;
    CheckpointError where a reload does not give the run's probe logits; UsageError for runs that do
    not belong together.
    """
    runs = {folder: _finished(folder) for folder in folders}
    _check_kin(runs)
    places = {folder: _place(result) if len(runs) > 1 else "" for folder, result in runs.items()}
    contents: dict[str, bytes] = {}
    for folder, result in runs.items():
        _check_reload(folder)
        names = [*NEEDED, RESULT_FILE]
        if with_teacher and result.teacher is not None:
            names += [f"{TEACHER_FOLDER}/{name}" for name in (TENSORS_FILE, CONFIG_FILE)]
        for name in names:
            contents["/".join(part for part in (places[folder], name) if part)] = (
                folder / name
            ).read_bytes()
    contents[CARD_FILE] = _card(repo, {places[folder]: run for folder, run in runs.items()})
    return contents


def _finished(folder: Path) -> Result:
    """The folder's result, with every file beside it as it was when that was written."""
    if not (folder / RESULT_FILE).is_file():
        raise RunFolderError(
            f"'{folder}' holds no {RESULT_FILE}: not a finished run.",
            hint="An unfinished one goes on with `idat train … --resume`.",
        )
    result = load_result(folder / RESULT_FILE)
    if result.kind != "run":
        raise RunFolderError(f"'{folder}' holds an evaluation, not a run.")
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    changed = [
        name
        for name, sha256 in result.files.items()
        if (folder / name).is_file() and files.sha256(folder / name) != sha256
    ]
    if missing or changed:
        told = [f"{name} is missing" for name in missing]
        told += [f"{name} is not what the run wrote (SHA-256)" for name in changed]
        raise RunFolderError(f"'{folder}' is not whole: {'; '.join(told)}.")
    return result


def _check_kin(runs: Mapping[Path, Result]) -> None:
    """One repository, one kind of adapter: the same pair and family."""
    kinds = {(r.recipe.pair.name, r.recipe.adapter.name) for r in runs.values()}
    if len(kinds) > 1:
        told = ", ".join(sorted("/".join(kind) for kind in kinds))
        raise UsageError(f"these runs do not belong into one repository: {told}.")


def _place(result: Result) -> str:
    """A run's subfolder where there are several."""
    return f"{result.recipe.task.id}/{result.recipe_hash[:8]}-seed{result.seed}"


def _check_reload(folder: Path) -> None:
    written = files.parse_tensors((folder / PROBE_FILE).read_bytes())["logits"]
    found = probe_logits(load_checkpoint(folder).network)
    off = (found - written).abs().max().item()
    if not off <= PROBE_TOLERANCE * max(1.0, written.abs().max().item()):
        raise CheckpointError(
            f"'{folder}' does not reproduce its own probe: logits differ by {off:.1e}."
        )


def _card(repo: str, results: Mapping[str, Result]) -> bytes:
    """The card, which names nothing of this machine."""
    fields, scores = card_fields(results), card_scores(results)
    card = card_metadata(repo.partition("/")[2], fields, scores) + card_text(repo, results)
    local = LOCAL_PATH.search(card)
    if local:
        raise UsageError(f"the card would show a path of this machine: {local[0]}")
    return card.encode()
