"""Progress of a run: a live bar on a terminal, a line every ten seconds elsewhere."""

import sys
import time
from collections.abc import Sequence
from statistics import fmean
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress import Progress, ProgressColumn, Task, TaskID
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from idat_zoo.cli import screen
from idat_zoo.errors import ZooError
from idat_zoo.runs.progress import Progress as Listener

if TYPE_CHECKING:
    from idat_zoo.engine.learner import EpochLog

SECONDS_BETWEEN_LINES = 10
SECONDS_BETWEEN_MOVES = 0.1
BAR_WIDTH = 8
PARTS = {
    "student_task_loss": "student",
    "teacher_task_loss": "teacher",
    "distillation_loss": "distillation",
}


class Line(ProgressColumn):
    """A column that renders a whole task as one line: name, bar, then details as room permits.

    The bar is always shown. `details` come first, then the remaining time, then `more`; the last
    of them are left out first.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def render(self, task: Task) -> RenderableType:
        """One line of at most the terminal's width."""
        name = Text(task.description)
        name.truncate(max(1, self._console.width - BAR_WIDTH - 1), overflow="ellipsis")
        shown = ""
        room = self._console.width - name.cell_len - BAR_WIDTH - 2
        for detail in (*task.fields["details"], _time_left(task), *task.fields["more"]):
            longer = "  ".join(filter(None, (shown, detail)))
            if Text(longer).cell_len > room:
                break
            shown = longer
        line = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
        bar = ProgressBar(
            total=task.total,
            completed=task.completed,
            width=BAR_WIDTH,
            pulse=task.total is None,
            animation_time=task.get_time(),
        )
        line.add_row(name, bar, *([Text(shown)] if shown else []))
        return line


def _time_left(task: Task) -> str:
    """The remaining time as `1:02:03` or `0:12`; empty if it is not known."""
    seconds = task.time_remaining
    if task.total is None or seconds is None:
        return ""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class LiveProgress(Listener):
    """Shows run, epoch, loss, images per second, remaining time, and the parts of the loss.

    With several worker processes each has a line below the other, on the same `bar`.
    """

    def __init__(self, bar: Progress | None = None) -> None:
        console = Console(stderr=True)
        self._bar = bar or Progress(
            Line(console),
            console=console,
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._task: TaskID | None = None
        self._counts: dict[str, TaskID] = {}
        self._moved = 0.0
        self._name, self._images, self._steps = "", 0, 0
        self._epochs = (0, 0)
        self._started = self._said = time.monotonic()
        self._run, self._loss, self._parts = "", "", list[str]()

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

    def worker(self, number: int) -> "LiveProgress":
        """The progress of one worker process: a line of its own among those of the others."""
        return LiveProgress(self._bar)

    def ended(self) -> None:
        """Remove the worker's lines."""
        for shown in (self._task, *self._counts.values()):
            if shown is not None:
                self._bar.remove_task(shown)
        self._task, self._counts = None, {}

    def run(self, number: int, *, of: int) -> None:
        """Remember which of several runs this is; the following bars show it."""
        self._run = f"run {number} of {of}" if of > 1 else ""

    def doing(self, name: str, what: str) -> None:
        """Show a bar without an end for work of unknown length, such as loading weights."""
        self._show(name, total=None, details=[what])

    def stage(self, name: str, *, done: int, epochs: int, steps: int, images: int) -> None:
        """Show a bar for a training that begins, or resumes after epoch `done`."""
        self._name, self._images, self._steps = name, images, 0
        self._loss, self._parts = "", []
        self._epochs = (done, epochs)
        self._started = time.monotonic()
        total = (epochs - done) * steps
        self._show(name, total=total, details=[f"epoch {done}/{epochs}", "the first step"])
        if done:
            screen.note(f"{name}: going on after epoch {done} of {epochs}")

    def _show(self, name: str, *, total: int | None, details: list[str]) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        details = [self._run, *details]
        self._task = self._bar.add_task(name, total=total, details=details, more=[])

    def step(self) -> None:
        """Advance the bar by one step and update the speed."""
        assert self._task is not None
        self._steps += 1
        details = [self._run, *self._details()]
        self._bar.update(self._task, advance=1, details=details, more=self._parts)

    def epoch(self, logs: "Sequence[EpochLog]") -> None:
        """Show the losses, averaged over the runs; without a terminal, print them now and then."""
        if not logs:
            return
        parts = [log.as_json() for log in logs]
        self._parts = [
            f"{label} {fmean(own[name] for own in parts):.2f}"
            for name, label in PARTS.items()
            if name in parts[0]
        ]
        mean = "mean " if len(logs) > 1 else ""
        self._loss = f"{mean}loss {fmean(log.loss for log in logs):.2f}"
        self._epochs = (logs[0].epoch, self._epochs[1])
        if not sys.stderr.isatty() and time.monotonic() - self._said > SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            details = [self._run, *self._details(), *self._parts]
            screen.note(f"{self._name}: {'  '.join(filter(None, details))}")

    def decoding(self, what: str, done: int, total: int) -> None:
        """Show a bar for each image list that is decoded."""
        self._count(f"decoding {what}", done, total, f"{done:,} of {total:,} images")

    def fetching(self, what: str, done: int, total: int) -> None:
        """Show a bar for each task whose images are downloaded."""
        detail = f"{screen.size(done)} of {screen.size(total)}"
        self._count(f"fetching {what}", done, total, detail)

    def _count(self, what: str, done: int, total: int, detail: str) -> None:
        """Update the bar of a count; it is called for every image, so most calls change nothing."""
        if what not in self._counts:
            self._counts[what] = self._bar.add_task(what, total=total, details=[], more=[])
        now = time.monotonic()
        if done == total:
            self._bar.remove_task(self._counts.pop(what))
        elif now - self._moved > SECONDS_BETWEEN_MOVES:
            self._moved = now
            self._bar.update(self._counts[what], completed=done, details=[detail])
            if not sys.stderr.isatty() and now - self._said > SECONDS_BETWEEN_LINES:
                self._said = now
                screen.note(f"{what}: {detail}")

    def failed(self, label: str, error: ZooError) -> None:
        """Print which run failed, and its error."""
        screen.note(f"{label} failed:")
        screen.print_error(error)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        screen.note(text)

    def _details(self) -> list[str]:
        done, epochs = self._epochs
        speed = self._steps * self._images / max(time.monotonic() - self._started, 1e-9)
        return [f"epoch {done}/{epochs}", self._loss, f"{speed:.0f} images/s"]
