"""The listener that hears how trainings go."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from idat_zoo.data.reading import Listener
from idat_zoo.errors import ZooError

if TYPE_CHECKING:
    from idat_zoo.engine.learner import EpochLog


class Progress(Listener):
    """Hears how trainings go. This one says nothing; the command line's draws a bar."""

    def run(self, number: int, *, of: int) -> None:
        """Run `number` of `of` begins; they are trained one after the other."""

    def doing(self, name: str, what: str) -> None:
        """A pass does something before its first step, or after its last."""

    def stage(self, name: str, *, done: int, epochs: int, steps: int, images: int) -> None:
        """A pass begins its training.

        `done` of its `epochs` were trained earlier; an epoch has `steps`, a step `images`.
        """

    def step(self) -> None:
        """One optimisation step is done."""

    def epoch(self, logs: "Sequence[EpochLog]") -> None:
        """One epoch is done; `logs` has one entry for each run that took part in it."""

    def failed(self, label: str, error: ZooError) -> None:
        """One of several runs has ended with an error."""
