"""The folder of a run: where it is, which run it belongs to, and which files it holds.

<out>/<pair>/<adapter>/<task>/<first 8 of the recipe's hash>/seed<k>/
  recipe.toml                the resolved recipe; written first, it claims the folder
  split.csv                  of one's own images alone: which of them were train, val and test
  log.jsonl                  one line per epoch
  resume.safetensors         the state after the last whole epoch; gone once finished
  call.json, fault.json      how it was asked for, and what it ended with; gone once finished
  selection/<k>/             the same, and val.json, for each candidate of `selection = "val"`
  adapter_model.safetensors, config.json    the student; teacher/ holds the teacher's
  predictions.safetensors, probe.safetensors
  result.json                written last: its presence means finished
  .lock, .owner.json         who works in it now (`lock.py`)
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

    Raises: UsageError for an imported adapter's recipe, of which there is no run.
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
    """What tells a run from others, for people: its folder below --out."""
    return run_folder(Path(), recipe, seed).as_posix()


def tell_beside(folder: Path, recipe: Recipe, *, asked: Collection[Path]) -> str:
    """Of a run that has not begun: which run beside it was perhaps meant, and what sets it apart.

    The nearest one of the same pair, adapter, task and seed that is not asked for itself; '' where
    there is none, or where the run itself has begun.
    """
    if (folder / RECIPE_FILE).exists():
        return ""
    apart = {}
    files_beside = sorted(folder.parents[1].glob(f"*/{folder.name}/{RECIPE_FILE}"))
    for file in (file for file in files_beside if file.parent not in asked):
        with contextlib.suppress(RecipeError):
            other = parse_recipe(read_text(file), where=str(file))
            apart[file.parent] = _set_apart(other, recipe)
    if not apart:
        return ""
    near = min(apart, key=lambda place: len(apart[place]))
    state = "finished" if (near / RESULT_FILE).is_file() else "unfinished"
    return (
        f"nothing to resume in '{folder}', which begins anew; the {state} run in '{near}' has "
        f"{', '.join(apart[near])}"
    )


def _set_apart(other: Recipe, recipe: Recipe) -> list[str]:
    """Each field in which another recipe differs, with both values."""
    ours, theirs = _flat(recipe.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
    return [
        f"{key.replace('.options.', '.')} = {theirs.get(key)} (asked for: {ours.get(key)})"
        for key in dict.fromkeys([*theirs, *ours])
        if theirs.get(key) != ours.get(key)
    ]


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def find_finished(folder: Path, recipe: Recipe, *, out: Path) -> Result | None:
    """The result of a finished run; None for a folder without one. No lock is needed for it.

    Raises: RunFolderError for a folder of another run or one that may not be read.
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
        with contextlib.suppress(OSError):  # a disk that is read alone
            tidy(folder)
        clear_lock(folder)
        return load_result(folder / RESULT_FILE)


def _is_of(file: Path, recipe: Recipe) -> bool:
    """Whether a run's recipe file states this recipe, in whichever form it was written."""
    try:
        written = parse_recipe(read_text(file), where=str(file))
    except RecipeError:
        return False
    return recipe_hash(written) == recipe_hash(recipe)


def check_resumable(folder: Path, *, resume: bool) -> None:
    """Refuse an unfinished run without `resume`, which its lock's holder alone may ask.

    Raises: RunFolderError.
    """
    with _readable(folder):
        saved = (
            p
            for p in folder.rglob("*")
            if p.is_file() and not p.name.endswith(".part") and not is_lock(p)
        )
        begun = {folder / name for name in NOTHING_TRAINED}
        if not resume and any(p not in begun for p in saved):  # these alone are nothing to lose
            raise RunFolderError(
                f"'{folder}' holds an unfinished run.",
                hint="Add --resume to go on from its last whole epoch, or remove the folder.",
            )


def keep_call(folder: Path, *, words: Sequence[str], data_dir: Path | None) -> None:
    """Write down how a run was asked for, until it is finished."""
    call = Call(
        folder=folder.resolve(),
        cwd=Path.cwd(),
        words=tuple(words),
        data_dir=None if data_dir is None else data_dir.resolve(),
    )
    files.write_whole(folder / CALL_FILE, call.model_dump_json().encode())
    (folder / FAULT_FILE).unlink(missing_ok=True)


def keep_fault(folder: Path, error: ZooError) -> None:
    """Write down what a run ended with."""
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
    """Remove what only an unfinished run needs."""
    asides = (folder / CALL_FILE, folder / FAULT_FILE)
    for path in [*asides, *folder.rglob(STATE_FILE), *folder.rglob(".*.part")]:
        path.unlink(missing_ok=True)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a finished run but the result itself."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(".")]
    unlisted = (RESULT_FILE, STATE_FILE, CALL_FILE, FAULT_FILE)
    return {
        p.relative_to(folder).as_posix(): files.sha256(p) for p in paths if p.name not in unlisted
    }
