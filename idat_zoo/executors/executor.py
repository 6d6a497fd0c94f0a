"""The interface of an executor: an engine that trains the passes of a study."""

from collections.abc import Generator, Sequence
from typing import Protocol

from idat_zoo.runs.device_setup import DeviceSetup
from idat_zoo.runs.progress import Progress
from idat_zoo.runs.turn import Outcome, Terms, Turn


class Executor(Protocol):
    """An engine that trains turns in other processes, on this machine or on others.

    A turn is one pass with the runs that the stored plan groups into it, and is what is retried.
    Where a process ends early, the next one goes on from what the runs' folders hold.
    """

    def check(self) -> None:
        """Check that the engine is installed, and its cluster is there.

        Raises: UsageError, in one line.
        """

    def train(
        self, turns: Sequence[Turn], setup: DeviceSetup, terms: Terms, progress: Progress
    ) -> Generator[tuple[int, Outcome], None, None]:
        """Train turns; yields each run's position and outcome, as they end.

        A run whose process vanished has an error of one line. Closing the generator removes
        everything that the engine has started or written for itself.

        Raises: UsageError for an error that concerns all runs.
        """


def answer_finished(
    turns: Sequence[Turn], setup: DeviceSetup, terms: Terms, progress: Progress
) -> Generator[tuple[int, Outcome], None, list[Turn]]:
    """Yield the outcomes of the turns whose runs are all finished; returns the other turns."""
    waiting = list[Turn]()
    for turn in turns:
        if all(one.finished for one in turn.runs):
            yield from turn.train(setup, terms, progress)
        else:
            waiting.append(turn)
    return waiting
