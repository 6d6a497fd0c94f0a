"""TensorBoard: event files in the run's folder, by torch's writer."""

import json
from collections.abc import Mapping
from typing import ClassVar

from idat_zoo.errors import ZooError
from idat_zoo.file_names import TENSORBOARD_FOLDER
from idat_zoo.results import Result
from idat_zoo.trackers.base import TrackedRun, Tracker, final_values, outcome_in_a_word

EVENT_FILES = "events.out.tfevents.*"


class TensorBoard(Tracker):
    """A run's scalars by epoch, its recipe as text.

    The event files of an earlier process are replaced, as all epochs are logged again; so none is
    there twice.
    """

    name = "tensorboard"
    modules: ClassVar[tuple[str, ...]] = ("torch.utils.tensorboard",)

    def start(self, run: TrackedRun) -> None:
        """Write the recipe."""
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / TENSORBOARD_FOLDER
        for earlier in folder.glob(EVENT_FILES):
            earlier.unlink()
        self._epoch = 0
        self._writer = SummaryWriter(str(folder))
        config = "\n".join(f"    {key} = {json.dumps(v)}" for key, v in run.config.items())
        self._add_text("recipe", f"{run.label}\n\n{config}")

    def log(self, values: Mapping[str, float]) -> None:
        """Write the values as scalars of the step `epoch`."""
        self._epoch = int(values["epoch"])
        self._add({name: value for name, value in values.items() if name != "epoch"})

    def finish(self, outcome: Result | ZooError | None) -> None:
        """Write the final values, and how the run ended."""
        if isinstance(outcome, Result):
            self._add(final_values(outcome))
        self._add_text("outcome", outcome_in_a_word(outcome))
        self._writer.close()

    def _add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, self._epoch)
        self._writer.flush()

    def _add_text(self, name: str, text: str) -> None:
        self._writer.add_text(name, text, self._epoch)
