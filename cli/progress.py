"""How a run in progress looks: a live bar on a terminal, now and then a line elsewhere."""

import sys
import time
from collections.abc import Sequence
from statistics import fmean
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from idat_zoo.cli import screen
from idat_zoo.engine.train import EpochLog
from idat_zoo.errors import ZooError
from idat_zoo.fit import Progress as Listener

SECONDS_BETWEEN_LINES = 10
SECONDS_BETWEEN_MOVES = 0.1
PARTS = {
    "student_task_loss": "student",
    "teacher_task_loss": "teacher",
    "distillation_loss": "distillation",
}


class LiveProgress(Listener):
    """Epoch, loss and its parts, images a second and the time left, on stderr."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=10),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=5)),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._task: TaskID | None = None
        self._counts: dict[str, TaskID] = {}
        self._moved = 0.0
        self._name, self._images, self._steps = "", 0, 0
        self._epochs = (0, 0)
        self._started = self._said = time.monotonic()
        self._loss = ""

    def __enter__(self) -> "LiveProgress":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def stage(self, name: str, *, done: int, epochs: int, steps: int, images: int) -> None:
        """A training begins, or goes on behind epoch `done`."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._name, self._images, self._steps, self._loss = name, images, 0, ""
        self._epochs = (done, epochs)
        self._started = time.monotonic()
        self._task = self._bar.add_task(name, total=(epochs - done) * steps, detail="")
        if done:
            screen.note(f"{name}: going on behind epoch {done} of {epochs}")

    def step(self) -> None:
        """Count the step and show the speed."""
        assert self._task is not None
        self._steps += 1
        self._bar.update(self._task, advance=1, detail=self._detail())

    def epoch(self, logs: Sequence[EpochLog]) -> None:
        """Show the losses, means over the runs; without a terminal, a line every ten seconds."""
        if not logs:
            return
        parts = [log.as_json() for log in logs]
        told = [
            f"{label} {fmean(own[name] for own in parts):.2f}"
            for name, label in PARTS.items()
            if name in parts[0]
        ]
        runs = f"{len(logs)} runs, mean " if len(logs) > 1 else ""
        self._loss = f"{runs}loss {fmean(log.loss for log in logs):.2f} ({', '.join(told)})"
        self._epochs = (logs[0].epoch, self._epochs[1])
        if not sys.stderr.isatty() and time.monotonic() - self._said > SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            screen.note(f"{self._name}: {self._detail()}")

    def decoding(self, what: str, done: int, total: int) -> None:
        """A bar for each list that is decoded; without a terminal, a line now and then."""
        self._count(f"decoding {what}", done, total, f"{done:,} of {total:,} images")

    def fetching(self, what: str, done: int, total: int) -> None:
        """The same for each task that is fetched."""
        detail = f"{screen.size(done)} of {screen.size(total)}"
        self._count(f"fetching {what}", done, total, detail)

    def _count(self, what: str, done: int, total: int, detail: str) -> None:
        """Called for every image, so the bar is moved once in a while."""
        if what not in self._counts:
            self._counts[what] = self._bar.add_task(what, total=total, detail="")
        now = time.monotonic()
        if done == total:
            self._bar.remove_task(self._counts.pop(what))
        elif now - self._moved > SECONDS_BETWEEN_MOVES:
            self._moved = now
            self._bar.update(self._counts[what], completed=done, detail=detail)
            if not sys.stderr.isatty() and now - self._said > SECONDS_BETWEEN_LINES:
                self._said = now
                screen.note(f"{what}: {detail}")

    def failed(self, label: str, error: ZooError) -> None:
        """Which run, and its error as any other is shown."""
        screen.note(f"{label} failed:")
        screen.print_error(error)

    def note(self, text: str) -> None:
        """A line above the bar."""
        screen.note(text)

    def _detail(self) -> str:
        done, epochs = self._epochs
        speed = self._steps * self._images / max(time.monotonic() - self._started, 1e-9)
        told = [f"epoch {done}/{epochs}", self._loss, f"{speed:.0f} images/s"]
        return "  ".join(part for part in told if part)
