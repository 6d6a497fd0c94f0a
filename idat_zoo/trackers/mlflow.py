"""MLflow: a run of the tracking server or store that MLFLOW_TRACKING_URI names."""

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

RUN_TAG = "idat_zoo.run"
MOST_PARAMS = 100
"""MLflow's limit of parameters a call."""


def _open_store() -> Any:
    """A client of MLflow's store.

    Raises: ZooError for a store on this machine that mlflow refuses: its default, SQLite, is not in
    mlflow-skinny, and files need a variable.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.MlflowClient()
    except MlflowException as error:
        uri = mlflow.get_tracking_uri()
        if uri.startswith("file:"):
            way = f"this mlflow writes to {uri} with MLFLOW_ALLOW_FILE_STORE=true"
        elif uri.startswith("sqlite:"):
            variables = "MLFLOW_TRACKING_URI=file:./mlruns MLFLOW_ALLOW_FILE_STORE=true"
            way = f"this mlflow has no store for {uri}; it writes to files with {variables}"
        else:
            raise
        raise ZooError(way) from error


class MLflow(Tracker):
    """An MLflow run, found again by the tag `idat_zoo.run`, so that a resumed run goes on in it."""

    name = "mlflow"
    modules: ClassVar[tuple[str, ...]] = ("mlflow",)

    def start(self, run: TrackedRun) -> None:
        """Create the run of this id in the experiment, or go on with it."""
        self._client: Any = _open_store()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        found = self._client.search_runs([number], f"tags.`{RUN_TAG}` = '{run.id}'", max_results=1)
        self._epoch = self._known = 0
        if found:
            self._id = found[0].info.run_id
            known = self._client.get_metric_history(self._id, "loss")
            self._known = max((point.step for point in known), default=0)
            self._client.update_run(self._id, status="RUNNING")
            return
        tags = {RUN_TAG: run.id, "recipe_hash": run.recipe_hash}
        self._id = self._client.create_run(number, tags=tags, run_name=run.label).info.run_id
        self._log_config(run.config)

    def _log_config(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)[:6000]) for key, value in config.items()]
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self._id, params=params[first : first + MOST_PARAMS])

    def log(self, values: Mapping[str, float]) -> None:
        """Log the values at the step `epoch`, unless an earlier process has."""
        self._epoch = int(values["epoch"])
        if self._epoch > self._known:
            self._log({name: value for name, value in values.items() if name != "epoch"})

    def finish(self, outcome: Result | ZooError | None) -> None:
        """Log the final values; the run is FINISHED, FAILED or KILLED."""
        if isinstance(outcome, Result):
            self._log(final_values(outcome))
        self._client.set_tag(self._id, "outcome", outcome_in_a_word(outcome)[:5000])
        status = "FINISHED" if isinstance(outcome, Result) else "FAILED" if outcome else "KILLED"
        self._client.set_terminated(self._id, status)

    def _log(self, values: Mapping[str, float]) -> None:
        from time import time

        from mlflow.entities import Metric

        now = int(time() * 1000)
        metrics = [Metric(name, float(value), now, self._epoch) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)
