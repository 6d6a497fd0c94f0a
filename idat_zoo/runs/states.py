"""The states of runs on disk, finished or not, read from their folders. Free of torch."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from idat_zoo.candidates import combinations, with_values
from idat_zoo.data.suites import is_known, suite_of
from idat_zoo.data.suites.base import Place
from idat_zoo.digest import digest_fits, edited_in_words
from idat_zoo.engine.schedule import total_epochs
from idat_zoo.errors import RunFolderError, ZooError
from idat_zoo.file_names import (
    CALL_FILE,
    ENSEMBLE_FOLDER,
    FAULT_FILE,
    LOG_FILE,
    NOTHING_TRAINED,
    RECIPE_FILE,
    RESULT_FILE,
)
from idat_zoo.recipe import Recipe
from idat_zoo.recipe_toml import parse_recipe, read_text
from idat_zoo.runs.lock import holder_of, is_lock
from idat_zoo.values import Frozen

LEVELS = 5
"""The number of folders of a run below `--out`: pair/adapter/task/hash/seed."""

State = Literal["finished", "unusable", "running", "diverged", "failed", "unfinished", "not begun"]


class Call(Frozen):
    """The call that started an unfinished run, as call.json stores it.

    `words` are those of the command line, and empty for a call from Python. `folder` is the run's
    folder at that time; if it was moved or copied, the command does not resume it.
    """

    folder: Path
    cwd: Path
    words: tuple[str, ...] = ()
    data_dir: Path | None = None


class Fault(Frozen):
    """The error that ended a run, as fault.json stores it; a killed process leaves none."""

    kind: str
    message: str


Kept = TypeVar("Kept", Call, Fault)


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The state of a run: `epoch` of its `epochs` are complete.

    Those of an ensemble are the sums over its `members`, which are 1 for any other run.
    `top1` is that of a finished run, a fraction. `diverged` marks a finished run whose training
    diverged and was kept on purpose. `fault` is the message of the error that ended the run, or ''.
    The result of an `unusable` run was edited or damaged, as its `fault` says.
    """

    folder: Path
    recipe: Recipe
    seed: int
    state: State
    epoch: int
    epochs: int
    members: int
    top1: float | None
    diverged: bool
    fault: str

    @property
    def label(self) -> str:
        """A readable id without the seed: pair/adapter/task/hash."""
        return "/".join(self.folder.parts[-LEVELS:-1])

    @property
    def waits(self) -> bool:
        """Whether it is unfinished, no process is training it, and it can be resumed as it is."""
        return self.state in ("failed", "unfinished", "not begun")


def find_runs(place: Path, faults: list[str]) -> list[RunState]:
    """The runs at or below a folder, in order of path.

    For each run that cannot be read, a message is added to `faults`.
    """
    found = []
    for file in sorted(place.rglob(RECIPE_FILE)):
        try:
            found.append(_state_of(_with_levels(file.parent)))
        except ZooError as error:
            faults.append(error.message)
        except (OSError, ValueError, KeyError, TypeError) as error:  # an invalid result.json
            faults.append(f"{file.parent}: {error}")
    return found


def _with_levels(folder: Path) -> Path:
    """The folder by a path long enough to hold all levels of a run; made absolute if need be."""
    return folder if len(folder.parts) > LEVELS else folder.resolve()


def _state_of(folder: Path) -> RunState:
    recipe = _recipe_of(folder)
    named = re.fullmatch(r"seed(\d+)", folder.name)
    place = (recipe.pair.name, recipe.adapter.label, recipe.task.id)
    if named is None or folder.parts[-LEVELS:-2] != place:
        raise RunFolderError(f"'{folder}' is not where a run of its recipe lies: it was moved.")
    result = folder / RESULT_FILE
    finished, unusable = _finished(result)
    fault = _read(folder / FAULT_FILE, Fault)
    state: State = "unfinished"
    if unusable:
        state = "unusable"
    elif finished is not None:
        state = "finished"
    elif holder_of(folder) is not None:
        state = "running"
    elif fault is not None:
        state = "diverged" if fault.kind == "DivergedError" else "failed"
    elif all(is_lock(path) or path.name in NOTHING_TRAINED for path in folder.iterdir()):
        state = "not begun"
    trained, logs = [recipe], LOG_FILE
    if recipe.selection == "ensemble":
        trained = [with_values(recipe, values) for values in combinations(recipe)]
        logs = f"{ENSEMBLE_FOLDER}/*/{LOG_FILE}"
    return RunState(
        folder=folder,
        recipe=recipe,
        seed=int(named[1]),
        state=state,
        epoch=sum(log.read_bytes().count(b"\n") for log in folder.glob(logs)),
        epochs=sum(map(total_epochs, trained)),
        members=len(trained),
        top1=float(finished["top1"]) if finished is not None else None,
        diverged=finished is not None and bool(finished.get("diverged")),
        fault=fault.message if fault is not None and state in ("diverged", "failed") else unusable,
    )


def _finished(file: Path) -> tuple[dict[str, Any] | None, str]:
    """The document of a result, if there is one that can be used, or why it cannot, in words."""
    if not file.is_file():
        return None, ""
    content = file.read_bytes()
    try:
        document = json.loads(content)
    except ValueError:
        return None, f"'{file}' is damaged, and no JSON document."
    if not digest_fits(content):
        return None, f"{edited_in_words(file)}."
    return document, ""


def _recipe_of(folder: Path) -> Recipe:
    file = folder / RECIPE_FILE
    return parse_recipe(read_text(file), where=str(file))


def _read(file: Path, kind: type[Kept]) -> Kept | None:
    """The document in a file; None if the file is missing or invalid."""
    try:
        return kind.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def resume_command(folder: Path, data_dir: Path | None = None) -> str:
    """The shell command that resumes the unfinished run in a folder.

    It is the command that started the run, so that runs of one pass are resumed together. For a run
    that was moved or started from Python, it is built from the recipe; `data_dir` then replaces the
    stored folder of images. Images that a Python program holds need a call from Python, which is
    returned instead.

    Raises: RecipeError if the recipe cannot be read.
    """
    call = _read(folder / CALL_FILE, Call)
    if call is not None and call.words and call.folder == folder.resolve() and call.cwd.is_dir():
        name, *words = call.words
        again = [] if "--resume" in words or name != "train" else ["--resume"]
        command = shlex.join(["idat", name, *again, *words])
        there = call.cwd == Path.cwd()
        return command if there else f"cd {shlex.quote(str(call.cwd))} && {command}"
    recipe, seed = _recipe_of(folder), folder.name.removeprefix("seed")
    place = Place.DATA_FOLDER  # the default for a suite whose plugin is not loaded
    if is_known(recipe.task.suite):
        place = suite_of(recipe.task).place
    if place is Place.MEMORY:
        return "run(recipe, data=…, resume=True) from Python, with the data that it was given"
    out = _with_levels(folder).parents[LEVELS - 1]
    words = ["idat", "train", "--recipe", str(folder / RECIPE_FILE), "--seed", seed]
    words += ["--out", str(out), "--resume", *recipe.plugin_words]
    words += ["--teacher-from", "REF"] * len(recipe.offline_teachers)
    images = data_dir or (call.data_dir if call is not None else None)
    if images is not None and place is not Place.BUILT_IN:
        words += ["--data-dir", str(images)]
    elif place is Place.DATA_DIR:
        words += ["--data-dir", "DIR"]
    return shlex.join(words)
