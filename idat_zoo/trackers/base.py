"""The protocol of an experiment tracker: three calls for every run."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from idat_zoo.errors import ZooError
from idat_zoo.recipe import Recipe
from idat_zoo.results import Result

PROJECT = "idat-zoo"
"""The project or experiment of tracked runs, unless the tracker's own variable names another."""


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """A run as a tracker knows it: its label, recipe, the recipe's hash, seed and folder."""

    label: str
    recipe: Recipe
    recipe_hash: str
    seed: int
    folder: Path

    @property
    def id(self) -> str:
        """The same id for every process that trains the run in this folder: 16 hex digits."""
        return sha256(str(self.folder.resolve()).encode()).hexdigest()[:16]

    @property
    def config(self) -> dict[str, Any]:
        """The recipe's fields with dots between levels, and the recipe's hash and the seed."""
        fields = self.recipe.model_dump(mode="json", exclude_none=True)
        return {"recipe_hash": self.recipe_hash, "seed": self.seed, **_flat(fields)}


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


class Tracker(ABC):
    """A run in a tracker: one object a run, all of whose calls come from one thread.

    The calls are `start`, then `log` for every epoch from the first one, then `finish`. A run that
    is resumed is started again with the same `TrackedRun.id`, and its epochs are logged again: a
    tracker leaves out or replaces those that it has. An exception of any call ends the tracking of
    all runs of the command, with a warning, but no run. `modules` are imported before training.
    """

    name: ClassVar[str]
    modules: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def start(self, run: TrackedRun) -> None:
        """The run has its first epoch, or goes on."""

    @abstractmethod
    def log(self, values: Mapping[str, float]) -> None:
        """One line of log.jsonl: the number of the `epoch`, from 1, and its values."""

    @abstractmethod
    def finish(self, outcome: Result | ZooError | None) -> None:
        """The run has a result, or ended with an error; None for an interrupted command."""


def final_values(result: Result) -> dict[str, float]:
    """The final test top-1 as fractions: the student's with its interval, and the teacher's."""
    low, high = result.top1_interval
    values = {"top1": result.top1, "top1_low": low, "top1_high": high}
    return values | ({} if result.teacher is None else {"teacher_top1": result.teacher.top1})


def outcome_in_a_word(outcome: Result | ZooError | None) -> str:
    """`finished`, `interrupted`, or the message of the error."""
    if isinstance(outcome, ZooError):
        return outcome.message
    return "interrupted" if outcome is None else "finished"
