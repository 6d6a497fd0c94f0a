"""The executors by name, each found where it is used. Free of torch and of every engine."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from idat_zoo.errors import UnknownNameError, UsageError, plainly
from idat_zoo.values import Frozen

if TYPE_CHECKING:
    from idat_zoo.executors.executor import Executor


class Place(NamedTuple):
    """The places `module:Class` of an executor and its options.

    `executor` is '' where no object trains: `local` is the call itself with its worker processes,
    `hf-jobs` submits jobs and ends, and `print` prints commands.
    """

    executor: str
    options: str


LOCAL, HF_JOBS, PRINT = "local", "hf-jobs", "print"
EXECUTORS = {
    LOCAL: Place("", "idat_zoo.executors.names:NoOptions"),
    "slurm": Place(
        "idat_zoo.executors.slurm:SlurmExecutor", "idat_zoo.executors.slurm_options:SlurmOptions"
    ),
    "ray": Place("idat_zoo.executors.ray:RayExecutor", "idat_zoo.executors.ray_options:RayOptions"),
    HF_JOBS: Place("", "idat_zoo.executors.hf_jobs_options:HfJobsOptions"),
    PRINT: Place("", "idat_zoo.executors.command:CommandOptions"),
}


class NoOptions(Frozen):
    """The options of `local`, which has none: --jobs says how many processes train."""


def check_name(name: str, *, jobs: int = 1) -> None:
    """Raises: UnknownNameError; UsageError for several `jobs`, which only `local` has."""
    if name not in EXECUTORS:
        raise UnknownNameError("executor", name, EXECUTORS)
    if jobs > 1 and name != LOCAL:
        raise UsageError(
            f"--jobs belongs to the executor 'local'; --executor is '{name}'.",
            hint="--executor-option KEY=VALUE sets how many passes are trained at the same time.",
        )


def find_options(name: str, words: Sequence[str]) -> Frozen:
    """The options of an executor from words KEY=VALUE.

    Raises: UnknownNameError for an executor or a key that is not known; UsageError for a word
    without `=`, a key that is given twice or missing, or a value of another kind.
    """
    check_name(name)
    kind: type[Frozen] = _find(EXECUTORS[name].options)
    given = _split(words)
    for key in given:
        if key not in kind.model_fields:
            if not kind.model_fields:
                raise UsageError(
                    f"executor '{name}' has no options; got '{key}'.",
                    hint="--jobs says how many processes train.",
                )
            raise UnknownNameError(f"option of executor '{name}'", key, kind.model_fields)
    try:
        return kind.model_validate_strings(given)
    except ValidationError as error:
        fault = error.errors()[0]
        if fault["type"] == "missing":
            key = str(fault["loc"][0])
            raise UsageError(
                f"executor '{name}' needs the option '{key}'.",
                hint=f"--executor-option {key}=…, see docs/executors.md",
            ) from None
        place, said = fault["loc"][0], plainly(fault["msg"])
        raise UsageError(f"executor '{name}': {place}: {said} (got '{fault['input']}')") from None


def open_executor(name: str, options: Frozen, *, folder: Path) -> "Executor | None":
    """The executor with a name and its options, for a study's folder; None if no object trains.

    It is checked: see `Executor.check`. Raises: UsageError.
    """
    place = EXECUTORS[name].executor
    if not place:
        return None
    executor: Executor = _find(place)(options, folder=folder)
    executor.check()
    return executor


def _split(words: Sequence[str]) -> Mapping[str, str]:
    given: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise UsageError(f"--executor-option takes KEY=VALUE; got '{word}'.")
        if key in given:
            raise UsageError(f"--executor-option {key} is given twice.")
        given[key] = value
    return given


def _find(place: str) -> Any:
    module, _, name = place.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise UsageError(f"this version of idat-zoo has no {module}.") from None
