"""A job of Slurm that trains a turn: its state, and the outcomes of its runs once it has ended."""

import pickle
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from idat_zoo.errors import TrainingError, UsageError, ZooError
from idat_zoo.executors.slurm_queue import ENDED, Job
from idat_zoo.runs.folder import find_finished
from idat_zoo.runs.progress import Progress
from idat_zoo.runs.turn import Outcome, Turn

LAG = 10.0
"""Seconds that a shared file system may take to show the outcome of a job that has ended."""
USUAL_REASONS = {"None", "Priority", "Resources", "BeginTime", "JobArrayTaskLimit", "Cleaning"}
"""Why jobs wait that will start by and by."""


@dataclass
class Element:
    """A job that trains a turn.

    `ended` is the time at which Slurm was first found to run it no more. `said` are the reasons for
    waiting of which a note was made.
    """

    turn: Turn
    job_id: str
    folder: Path
    ended: float | None = None
    state: str = ""
    said: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The name of the job in Slurm, and of its folder."""
        return self.folder.name

    def file(self, ending: str) -> Path:
        """A file of submitit for this job."""
        return self.folder / f"{self.job_id}_0_{ending}"


def runs_of(turn: Turn) -> tuple[str, ...]:
    """The absolute folders of a turn's runs, by which they are named in files and outcomes."""
    return tuple(str(one.folder.resolve()) for one in turn.runs)


def follow(element: Element, job: Job | None, progress: Progress) -> None:
    """Keep what Slurm says of a job. One that it does not list has ended some time ago."""
    now = time.monotonic()
    if job is None:
        if element.ended is None:
            element.ended = now
        return
    element.state = job.state
    element.ended = (element.ended or now) if job.has_ended else None
    if job.state == "PENDING" and job.reason not in USUAL_REASONS | element.said:
        element.said.add(job.reason)
        progress.note(f"Slurm job {element.job_id} waits: {job.reason}")


def is_over(element: Element) -> bool:
    """Whether a job has ended, and its outcome had time to appear on a shared disk."""
    return element.ended is not None and time.monotonic() - element.ended > LAG


def outcomes_of(element: Element) -> Iterator[tuple[int, Outcome]]:
    """The outcomes of a job that has ended: as it stored them, or else as its runs' folders say."""
    turn, stored = element.turn, _stored(element.file("result.pkl"))
    if isinstance(stored, UsageError):
        raise stored
    by_folder = stored if isinstance(stored, dict) else {}
    for name, position, one in zip(runs_of(turn), turn.positions, turn.runs, strict=True):
        outcome = by_folder.get(name)
        if outcome is None:
            try:
                outcome = find_finished(one.folder, one.recipe, out=one.out)
            except ZooError as error:
                outcome = error
        yield position, outcome or _death(element, stored if isinstance(stored, str) else "")


def _stored(file: Path) -> object:
    """What a job returned, the traceback of what it raised, or None if it ended without a word."""
    try:
        return pickle.loads(file.read_bytes())[1]
    except FileNotFoundError:
        return None


def _death(element: Element, raised: str) -> TrainingError:
    """The error of a run whose job has ended without its outcome."""
    how = f" ({element.state.lower().replace('_', ' ')})" if element.state in ENDED else ""
    try:
        written = element.file("log.err").read_text(errors="replace")
    except OSError:
        written = ""
    last = last_line(raised) or _last_words(written)
    return TrainingError(
        f"Slurm job {element.job_id} ended{how}{f': {last}' if last else ''}",
        hint=f"Its logs: '{element.folder}'. What was saved is kept: the same command goes on.",
    )


def _last_words(log: str) -> str:
    """Why a job ended, of its log: what Slurm's daemon says, or else the last line of its own."""
    lines = [line for line in log.splitlines() if not line.startswith(("submitit ", "srun: "))]
    ended = [line for line in lines if line.startswith("slurmstepd")]
    return last_line("\n".join(ended or lines))


def last_line(text: str) -> str:
    """The last line of a text that is not blank, or ''."""
    lines = [line.strip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "")
