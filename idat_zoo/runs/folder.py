"""The folder of a run: its path, its files, and the checks that it belongs to the run.

<out>/<pair>/<adapter>/<task>/<first 8 of the recipe's hash>/seed<k>/
  recipe.toml                the resolved recipe; written first, to reserve the folder
  split.csv                  for a user's own images only: the split of each image
  log.jsonl                  one line per epoch
  resume.safetensors         the state after the last complete epoch; removed once finished
  call.json, fault.json      the command that started it, and its error; removed once finished
  selection/<k>/             log, state and val.json of each candidate of `selection = "val"`
  ensemble/<k>/              log and state of each member of `selection = "ensemble"`
  adapter_model.safetensors, config.json    the student; teacher/ holds the teacher's
  predictions.safetensors, probe.safetensors
  tensorboard/               event files, with `--tracker tensorboard`; the result lists none
  result.json                written last: its presence means finished
  .lock, .owner.json         the process that is training it now (`lock.py`)
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from idat_zoo import files
from idat_zoo.errors import RecipeError, RunFolderError, UsageError, ZooError
from idat_zoo.file_names import (
    CALL_FILE,
    FAULT_FILE,
    NOTHING_TRAINED,
    RECIPE_FILE,
    RESULT_FILE,
    TENSORBOARD_FOLDER,
)
from idat_zoo.recipe import Recipe
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.recipe_toml import parse_recipe, read_text
from idat_zoo.results import Result, load_result
from idat_zoo.runs.lock import clear_lock, is_lock
from idat_zoo.runs.states import Call, Fault

STATE_FILE = "resume.safetensors"
PROBE_FILE = "probe.safetensors"
SELECTION_FOLDER = "selection"
TEACHER_FOLDER = "teacher"


def run_folder(out: Path, recipe: Recipe, seed: int) -> Path:
    """runs/<pair>/<adapter>/<task>/<first 8 of the recipe's hash>/seed<k>.

    Raises: UsageError for the recipe of an imported adapter, which cannot be trained.
    """
    if recipe.protocol == "imported":
        raise UsageError(
            "protocol = 'imported' is of an adapter trained elsewhere, with settings that are not "
            "known: it cannot be trained.",
            hint="Train with protocol=standard or protocol=paper.",
        )
    names = (recipe.pair.name, recipe.adapter.label, recipe.task.id, recipe_hash(recipe)[:8])
    return out.joinpath(*names, f"seed{seed}")


def run_label(recipe: Recipe, seed: int) -> str:
    """A readable id of a run: its folder below `--out`."""
    return run_folder(Path(), recipe, seed).as_posix()


def tell_beside(folder: Path, recipe: Recipe, *, asked: Collection[Path]) -> str:
    """A hint for `--resume` of a run that has not begun: a similar run that may have been meant.

    The similar run has the same pair, adapter, task and seed, the fewest recipe fields that differ,
    and is not in `asked`, the folders of the runs to train now. The hint names these fields. It is
    '' if there is no such run, or the run itself has begun.
    """
    if (folder / RECIPE_FILE).exists():
        return ""
    apart = {}
    files_beside = sorted(folder.parents[1].glob(f"*/{folder.name}/{RECIPE_FILE}"))
    for file in (file for file in files_beside if file.parent not in asked):
        with contextlib.suppress(RecipeError):
            other = parse_recipe(read_text(file), where=str(file))
            apart[file.parent] = set_apart(other, recipe)
    if not apart:
        return ""
    near = min(apart, key=lambda place: len(apart[place]))
    state = "finished" if (near / RESULT_FILE).is_file() else "unfinished"
    return (
        f"nothing to resume in '{folder}', which begins anew; the {state} run in '{near}' has "
        f"{', '.join(apart[near])}"
    )


def set_apart(other: Recipe, recipe: Recipe) -> list[str]:
    """The fields in which another recipe differs, each as one text with both values."""
    ours, theirs = _fields(recipe), _fields(other)
    return [
        f"{key.replace('.options.', '.')} = {theirs.get(key)} (asked for: {ours.get(key)})"
        for key in dict.fromkeys([*theirs, *ours])
        if theirs.get(key) != ours.get(key)
    ]


def _fields(recipe: Recipe) -> dict[str, Any]:
    """The recipe's fields by dotted names, with further teachers in words."""
    fields = recipe.model_dump(mode="json")
    further = ", ".join(map(str, recipe.further_teachers or ()))
    return _flat(fields | {"further_teachers": further or None})


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def find_finished(folder: Path, recipe: Recipe, *, out: Path) -> Result | None:
    """The result in a run's folder, or None if the run is not finished. No lock is needed.

    Raises: RunFolderError if the folder belongs to another run or cannot be read, or if `out` is
    itself the folder of a run.
    """
    with _readable(folder):
        if (out / RECIPE_FILE).exists() or (out / RESULT_FILE).exists():
            raise RunFolderError(
                f"'{out}' is itself a run's folder.",
                hint="--out names the folder above all runs; each run makes its own below it.",
            )
        own = folder / RECIPE_FILE
        if not own.exists():
            if folder.exists() and any(
                not p.name.endswith(".part") and not is_lock(p) for p in folder.iterdir()
            ):
                raise RunFolderError(
                    f"'{folder}' is not empty and holds no {RECIPE_FILE} of a run."
                )
            return None
        if not _is_of(own, recipe):
            raise RunFolderError(
                f"'{folder}' holds another run: its {RECIPE_FILE} is not this run's.",
                hint="Choose another --out, or move that folder away.",
            )
        if not (folder / RESULT_FILE).exists():
            return None
        with contextlib.suppress(OSError):  # the disk may be read-only
            tidy(folder)
        clear_lock(folder)
        return load_result(folder / RESULT_FILE)


def _is_of(file: Path, recipe: Recipe) -> bool:
    """Whether a recipe file holds this recipe, be it in the present form or an older one."""
    try:
        written = parse_recipe(read_text(file), where=str(file))
    except RecipeError:
        return False
    return recipe_hash(written) == recipe_hash(recipe)


def check_resumable(folder: Path, *, resume: bool) -> None:
    """Refuse to continue an unfinished run without `resume`. Call it only while holding the lock.

    Raises: RunFolderError if the folder holds a trained epoch and `resume` is false, or if the
    folder cannot be read.
    """
    with _readable(folder):
        saved = (
            p
            for p in folder.rglob("*")
            if p.is_file() and not p.name.endswith(".part") and not is_lock(p)
        )
        begun = {folder / name for name in NOTHING_TRAINED}
        if not resume and any(p not in begun for p in saved):  # without them, nothing is lost
            raise RunFolderError(
                f"'{folder}' holds an unfinished run.",
                hint="Add --resume to go on from its last whole epoch, or remove the folder.",
            )


def keep_call(folder: Path, *, words: Sequence[str], data_dir: Path | None) -> None:
    """Write call.json: the command line that started a run; remove the error of an earlier try."""
    call = Call(
        folder=folder.resolve(),
        cwd=Path.cwd(),
        words=tuple(words),
        data_dir=None if data_dir is None else data_dir.resolve(),
    )
    files.write_whole(folder / CALL_FILE, call.model_dump_json().encode())
    (folder / FAULT_FILE).unlink(missing_ok=True)


def keep_fault(folder: Path, error: ZooError) -> None:
    """Write fault.json: the error that ended a run."""
    fault = Fault(kind=type(error).__name__, message=error.message)
    files.write_whole(folder / FAULT_FILE, fault.model_dump_json().encode())


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunFolderError(
            f"cannot read '{folder}': {error.strerror}", hint="Choose another --out."
        ) from None


def tidy(folder: Path) -> None:
    """Remove the files that only an unfinished run needs."""
    asides = (folder / CALL_FILE, folder / FAULT_FILE)
    for path in [*asides, *folder.rglob(STATE_FILE), *folder.rglob(".*.part")]:
        path.unlink(missing_ok=True)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a finished run, by its path below the folder.

    The result itself is left out, and event files, which a tracker still writes to.
    """
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(".")]
    unlisted = (RESULT_FILE, STATE_FILE, CALL_FILE, FAULT_FILE)
    return {
        p.relative_to(folder).as_posix(): files.sha256(p)
        for p in paths
        if p.name not in unlisted and p.parent != folder / TENSORBOARD_FOLDER
    }
