"""The thread that feeds one tracker with the epochs and the outcomes of a command's runs.

It lives in the process of the command, whichever process trains, and reads the runs' log.jsonl.
So a tracker that hangs or fails delays no step of a training.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from threading import Event, Thread, current_thread
from types import TracebackType
from typing import Any, TextIO

from idat_zoo.errors import ZooError
from idat_zoo.file_names import LOG_FILE
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.results import Result
from idat_zoo.runs.folder import run_label
from idat_zoo.runs.plan import Planned
from idat_zoo.runs.progress import Progress
from idat_zoo.trackers.base import TrackedRun, Tracker

SECONDS_BETWEEN_LOOKS = 0.5
LAST_SECONDS = 20.0
"""The time that trackers have for what is left when all runs have ended."""

FIRST_SECONDS = 8.0
"""The same for a tracker none of whose calls has come back yet, as its server may be gone."""


class Tracking:
    """The trackers of a command: `settle` tells them outcomes, and leaving the block ends them.

    Runs that were finished before the command are not tracked, which a note says.
    """

    def __init__(
        self, planned: Sequence[Planned], trackers: Sequence[type[Tracker]], progress: Progress
    ) -> None:
        runs = {}
        for position, one in enumerate(planned if trackers else ()):
            if not one.finished:
                runs[position] = TrackedRun(
                    label=run_label(one.recipe, one.seed),
                    recipe=one.recipe,
                    recipe_hash=recipe_hash(one.recipe),
                    seed=one.seed,
                    folder=one.folder,
                )
        finished = sum(one.finished for one in planned)
        tell_finished(finished, [one.name for one in trackers], progress)
        self._feeds = [_Feed(tracker, runs, progress) for tracker in trackers]
        self._stdout: TextIO = sys.stdout

    def settle(self, position: int, outcome: Result | ZooError) -> None:
        """Note the outcome of a run, by its position in the command."""
        for feed in self._feeds:
            feed.outcomes[position] = outcome

    def __enter__(self) -> "Tracking":
        if self._feeds:
            self._stdout = sys.stdout
            sys.stdout = _Aside(self._stdout)
        for feed in self._feeds:
            feed.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            for feed in self._feeds:
                feed.ending.set()
            for feed in self._feeds:
                feed.wait()
        finally:
            if self._feeds:
                sys.stdout = self._stdout


def tell_finished(count: int, trackers: Sequence[str], progress: Progress) -> None:
    """Say that trackers get nothing of the runs that were finished before the command."""
    if not (count and trackers):
        return
    runs = "1 run was finished" if count == 1 else f"{count} runs were finished"
    names = ", ".join(f"'{name}'" for name in dict.fromkeys(trackers))
    them = "it" if count == 1 else "them"
    progress.note(f"{runs} before this command, so nothing of {them} is sent to {names}")


class _Aside:
    """stdout, which trackers' own messages do not reach: those of their threads go to stderr."""

    def __init__(self, stdout: TextIO) -> None:
        self._stdout = stdout

    def __getattr__(self, name: str) -> Any:  # whatever a file has
        return getattr(sys.stderr if isinstance(current_thread(), _Feed) else self._stdout, name)


class _Followed:
    """A run as far as a tracker has got it."""

    def __init__(self, run: TrackedRun) -> None:
        self.run = run
        self.tracker: Tracker | None = None
        self.sent = 0
        self.seen = self.state()

    def state(self) -> tuple[int, int] | None:
        """The time and the number of the log's file, or None: it is written anew every epoch."""
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    @property
    def _file(self) -> Path:
        return self.run.folder / LOG_FILE

    def unsent(self) -> list[dict[str, float]]:
        """The lines of log.jsonl that the tracker has not got."""
        lines = self._file.read_text().splitlines()[self.sent :]
        return [json.loads(line) for line in lines]


class _Feed(Thread):
    """The thread of one tracker; it ends with the process even where the tracker hangs."""

    def __init__(
        self, tracker: type[Tracker], runs: dict[int, TrackedRun], progress: Progress
    ) -> None:
        super().__init__(name=f"tracker {tracker.name}", daemon=True)
        self.outcomes: dict[int, Result | ZooError] = {}
        self.ending = Event()
        self._tracker, self._progress = tracker, progress
        self._followed = {position: _Followed(run) for position, run in runs.items()}
        self._given_up = self._answered = False

    def run(self) -> None:
        """Look for new epochs and outcomes until the command ends."""
        try:
            while not self.ending.wait(SECONDS_BETWEEN_LOOKS):
                self._look()
            self._look()
            for one in self._followed.values():
                if one.tracker is not None:
                    one.tracker.finish(None)
        except ZooError as error:
            self._warn(error.message)
        except (Exception, SystemExit) as error:  # whatever a library raises ends no run
            message = str(error).strip().partition("\n")[0] or "no message"
            self._warn(f"{type(error).__name__}: {message}")

    def wait(self) -> None:
        """Wait for the end, but not longer than `LAST_SECONDS`, or `FIRST_SECONDS`."""
        self.join(FIRST_SECONDS)
        if self.is_alive() and not self._answered:
            self._warn(f"it has not answered {FIRST_SECONDS:g} seconds after the runs")
            return
        self.join(LAST_SECONDS - FIRST_SECONDS)
        if self.is_alive():
            self._warn(f"it has not ended {LAST_SECONDS:g} seconds after the runs")

    def _warn(self, why: str) -> None:
        if not self._given_up:
            self._given_up = True
            self._progress.note(
                f"tracker '{self._tracker.name}' is left out from here on: "
                f"{shorten(why, 300, placeholder='…')}. The runs are not affected; {LOG_FILE} and "
                "result.json have everything"
            )

    def _look(self) -> None:
        for position, one in list(self._followed.items()):
            outcome = self.outcomes.get(position)  # before the log, which is then complete
            state = one.state()
            if state is not None and (state != one.seen or isinstance(outcome, Result)):
                one.seen = state
                self._send(one)
            if outcome is None:
                continue
            if isinstance(outcome, Result) and one.tracker is None:
                self._begin(one)  # an ensemble, whose members have the logs
            if one.tracker is not None:
                one.tracker.finish(outcome)
            del self._followed[position]

    def _begin(self, one: _Followed) -> Tracker:
        one.tracker = self._tracker()
        one.tracker.start(one.run)
        self._answered = True
        return one.tracker

    def _send(self, one: _Followed) -> None:
        tracker = one.tracker or self._begin(one)
        for values in one.unsent():
            tracker.log(values)
            one.sent += 1
