"""A finished run that is to be published: its result, its checkpoint and its files, checked."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from idat_zoo import files
from idat_zoo.checkpoint.config import CONFIG_FILE
from idat_zoo.checkpoint.loading import Checkpoint, load_checkpoint
from idat_zoo.checkpoint.opened import Opened, open_checkpoint, open_content
from idat_zoo.checkpoint.probe import probe_logits
from idat_zoo.checkpoint.tensors import TENSORS_FILE
from idat_zoo.errors import CheckpointError, RunFolderError
from idat_zoo.file_names import RECIPE_FILE, RESULT_FILE
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.results import Result, load_result
from idat_zoo.runs.folder import PROBE_FILE, TEACHER_FOLDER
from idat_zoo.runs.states import resume_command

NEEDED = (TENSORS_FILE, CONFIG_FILE, RECIPE_FILE, PROBE_FILE)
TEACHER_FILES = tuple(f"{TEACHER_FOLDER}/{name}" for name in (TENSORS_FILE, CONFIG_FILE))
PROBE_TOLERANCE = 1e-4
"""The largest difference of reloaded probe logits from the run's, made on another machine."""


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A run's folder whose files are those that the run wrote.

    `contents` are the files that are published of it, by name. `opened` is the student's
    checkpoint.
    """

    folder: Path
    result: Result
    opened: Opened
    contents: Mapping[str, bytes] = field(repr=False)


def find_finished_runs(places: Iterable[Path]) -> list[Path]:
    """The folders of finished runs, each of these places itself or below it.

    A place without any is returned as it is, so that `read_finished` says what is wrong with it.
    """
    found: list[Path] = []
    for place in places:
        below = [] if (place / RESULT_FILE).exists() else sorted(place.rglob(RESULT_FILE))
        runs = [path.parent for path in below if (path.parent / RECIPE_FILE).is_file()]
        found += runs or [place]
    return found


def read_finished(folder: Path, *, with_teacher: bool = False) -> FinishedRun:
    """A folder's run, once every file in it is found to be as it was when the result was written.

    Raises: RunFolderError for a folder without a finished run, and for missing or changed files.
    """
    if not (folder / RESULT_FILE).is_file():
        raise _no_run(folder)
    result = load_result(folder / RESULT_FILE)
    if result.kind != "run":
        raise RunFolderError(f"'{folder}' holds an evaluation, not a run.")
    names = [*NEEDED, RESULT_FILE]
    if with_teacher and result.teacher is not None:
        names += TEACHER_FILES
    contents = {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
    missing = [name for name in names if name not in contents]
    changed = [
        name
        for name, expected in result.files.items()
        if (folder / name).is_file() and _digest(folder / name, contents.get(name)) != expected
    ]
    if missing or changed:
        told = [f"{name} is missing" for name in missing]
        told += [f"{name} is not what the run wrote (SHA-256)" for name in changed]
        raise RunFolderError(f"'{folder}' is not whole: {'; '.join(told)}.")
    opened = open_content(contents[CONFIG_FILE], folder)
    if not recipe_hash(result.recipe) == result.recipe_hash == opened.config.recipe_hash:
        raise RunFolderError(f"'{folder}': {RESULT_FILE} has another recipe than the run's.")
    if result.top1_best_on_test is not None and result.recipe.protocol != "paper":
        raise RunFolderError(
            f"'{folder}' has a best epoch on test, and is not labelled protocol = paper."
        )
    if result.recipe.task_loss == "joint":
        raise RunFolderError(
            f"'{folder}' was trained with task_loss = joint: its student answers together with its "
            "teacher, and what is published is a student that answers alone."
        )
    return FinishedRun(folder=folder, result=result, opened=opened, contents=contents)


def _digest(path: Path, content: bytes | None) -> str:
    """The SHA-256 of a file, of which the content may have been read already."""
    return files.sha256(path) if content is None else sha256(content).hexdigest()


def _no_run(folder: Path) -> RunFolderError:
    """The error for a folder without a result, which depends on what else the folder holds."""
    if not folder.is_dir():
        return RunFolderError(f"there is no folder '{folder}'.")
    if (folder / RECIPE_FILE).is_file():
        return RunFolderError(
            f"'{folder}' holds an unfinished run.",
            hint=f"`{resume_command(folder)}` goes on with it.",
        )
    own = open_checkpoint(folder).config if (folder / CONFIG_FILE).is_file() else None
    if own is not None and own.recipe.protocol == "imported":
        return RunFolderError(
            f"'{folder}' holds an imported adapter: of its training there is no {RESULT_FILE}, "
            "which a card is made of.",
            hint=f"`idat eval {shlex.quote(str(folder))}` says what it reaches; what "
            "PEFT wrote goes to the Hub by PEFT's own push_to_hub.",
        )
    return RunFolderError(
        f"'{folder}' holds no {RESULT_FILE}: not a finished run.",
        hint="RUN is a folder that `idat train` names at its end: …/seed0.",
    )


def reloaded(run: FinishedRun) -> Checkpoint:
    """A run's checkpoint, loaded anew. Raises: CheckpointError where its probe logits differ."""
    written = files.parse_tensors(run.contents[PROBE_FILE])["logits"]
    checkpoint = load_checkpoint(run.opened)
    off = (probe_logits(checkpoint.network) - written).abs().max().item()
    if not off <= PROBE_TOLERANCE * max(1.0, written.abs().max().item()):
        raise CheckpointError(
            f"'{run.folder}' does not reproduce its own probe: logits differ by {off:.1e}."
        )
    return checkpoint
