"""Weights & Biases, and trackio, whose functions have the same names."""

import importlib
import os
from collections.abc import Mapping
from typing import Any, ClassVar

from idat_zoo.errors import ZooError
from idat_zoo.results import Result
from idat_zoo.trackers.base import (
    PROJECT,
    TrackedRun,
    Tracker,
    final_values,
    outcome_in_a_word,
)

INIT_TIMEOUT = 20.0
"""Seconds that wandb waits for its server when a run is started."""


class WeightsAndBiases(Tracker):
    """A wandb run with the run's id, so that a resumed run goes on in it."""

    name = "wandb"
    modules: ClassVar[tuple[str, ...]] = ("wandb",)

    def start(self, run: TrackedRun) -> None:
        """Start or go on with the run of this id."""
        self._library: Any = importlib.import_module(self.name)
        self._epoch = 0
        self._run: Any = self._library.init(
            project=os.environ.get(f"{self.name.upper()}_PROJECT", PROJECT),
            config=run.config,
            resume="allow",
            **self._options(run),
        )
        self._known = self._last_epoch(run)

    def _options(self, run: TrackedRun) -> dict[str, Any]:
        quiet = self._library.Settings(silent=True, console="off", init_timeout=INIT_TIMEOUT)
        tags = [run.recipe_hash[:8], run.recipe.task.id, run.recipe.adapter.name]
        return {
            "id": f"idat-{run.id}",
            "name": run.label,
            "tags": [tag[:64] for tag in dict.fromkeys(tags)],
            "reinit": "create_new",  # runs of one pass are tracked at the same time
            "settings": quiet,
        }

    def _last_epoch(self, run: TrackedRun) -> int:
        """The last epoch that the server has; 0 for none, and for an offline run."""
        return max(0, int(self._run.step) - 1)

    def log(self, values: Mapping[str, float]) -> None:
        """Log the values at the step `epoch`, unless an earlier process has."""
        self._epoch = int(values["epoch"])
        if self._epoch > self._known:
            self._run.log(dict(values), step=self._epoch)

    def finish(self, outcome: Result | ZooError | None) -> None:
        """Put the final values into the summary; a failure makes the exit code 1."""
        ended: dict[str, Any] = {"outcome": outcome_in_a_word(outcome)}
        if isinstance(outcome, Result):
            ended |= final_values(outcome)
        self._summarise(ended)
        self._end(failed=not isinstance(outcome, Result))

    def _summarise(self, values: Mapping[str, Any]) -> None:
        self._run.summary.update(dict(values))

    def _end(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class Trackio(WeightsAndBiases):
    """A trackio run by the run's label and id: it has names instead of ids, and no summary."""

    name = "trackio"
    modules: ClassVar[tuple[str, ...]] = ("trackio",)

    def _options(self, run: TrackedRun) -> dict[str, Any]:
        quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        return {"name": self._name(run), **quiet}

    def _name(self, run: TrackedRun) -> str:
        return f"{run.label.replace('/', '-')}-{run.id}"

    def _last_epoch(self, run: TrackedRun) -> int:
        storage = importlib.import_module("trackio.sqlite_storage").SQLiteStorage
        logs = storage.get_logs(self._run.project, self._run.name)
        return max((int(line.get("epoch", 0)) for line in logs), default=0)

    def _summarise(self, values: Mapping[str, Any]) -> None:
        self._run.log(dict(values), step=self._epoch + 1)

    def _end(self, *, failed: bool) -> None:
        self._run.finish()
