"""The interface through which trainings report their progress."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from idat_zoo.data.reading import Listener
from idat_zoo.errors import ZooError

if TYPE_CHECKING:
    from idat_zoo.engine.learner import EpochLog


class Progress(Listener):
    """Callbacks for the progress of trainings. These do nothing; the command line draws a bar.

    With several worker processes, `worker` gives the listener of each. Unless it is overridden, all
    of them are this one, and the callbacks of runs that are trained at the same time alternate.
    """

    def worker(self, number: int) -> "Progress":
        """The listener for the runs that worker process `number`, from 0, trains."""
        return self

    def ended(self) -> None:
        """A worker process has ended: its listener is not called again."""

    def run(self, number: int, *, of: int) -> None:
        """Run `number` of `of` begins; they are trained one after the other."""

    def doing(self, name: str, what: str) -> None:
        """The work `what` begins in pass `name`, before its first step or after its last."""

    def stage(self, name: str, *, done: int, epochs: int, steps: int, images: int) -> None:
        """A pass begins its training.

        `done` of its `epochs` were trained by an earlier process. `steps` is the number of steps
        per epoch, `images` the number of images per step.
        """

    def step(self) -> None:
        """One optimisation step is done."""

    def epoch(self, logs: "Sequence[EpochLog]") -> None:
        """One epoch is done; `logs` has one entry for each run that took part in it."""

    def failed(self, label: str, error: ZooError) -> None:
        """One of several runs has ended with an error."""
