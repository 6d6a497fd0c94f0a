"""The training of one recipe or of many: the functions that turn recipes and seeds into results."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from idat_zoo.backbones.pair import check_carried
from idat_zoo.checkpoint.opened import Reference
from idat_zoo.data.arrays import Data, read_arrays
from idat_zoo.data.reading import Reading
from idat_zoo.distillation import build_term, term_for
from idat_zoo.engine.precision import computing, find_device
from idat_zoo.engine.timing import slowness
from idat_zoo.errors import UsageError, ZooError
from idat_zoo.recipe import Recipe
from idat_zoo.results import Result
from idat_zoo.runs.alike import cut_turns
from idat_zoo.runs.device_setup import DeviceSetup, set_up
from idat_zoo.runs.folder import run_label
from idat_zoo.runs.inputs import Inputs
from idat_zoo.runs.offline import open_teachers, with_offline_teachers
from idat_zoo.runs.plan import Planned, plan
from idat_zoo.runs.progress import Progress
from idat_zoo.runs.tracking import Tracking
from idat_zoo.runs.turn import Outcome, Terms, Turn
from idat_zoo.runs.workers import train_in_workers
from idat_zoo.switches import Switches
from idat_zoo.trackers import find_trackers

TrainTurns: TypeAlias = Callable[
    [Sequence[Turn], DeviceSetup, Terms, Progress], Generator[tuple[int, Outcome], None, None]
]
"""Trains turns; yields the position and the outcome of each run. Raises: UsageError."""


def run(
    recipe: Recipe,
    *,
    seed: int = 0,
    device: str = "auto",
    data_dir: Path | str | None = None,
    data: Data | None = None,
    reading: Reading | None = None,
    out: Path | str = "runs",
    resume: bool = False,
    wait: bool = False,
    keep_diverged: bool = False,
    download: bool = False,
    teacher_from: Reference | Sequence[Reference] | None = None,
    switches: Switches | None = None,
    trackers: Sequence[str] = (),
    progress: Progress | None = None,
) -> Result:
    """Train a recipe, write its run folder, and return its result.

    A finished run is not repeated: its result is returned. An unfinished run needs `resume`. If
    another process is training the run, that is an error, or with `wait` its result is awaited.
    `download` allows downloading missing backbone weights, `reading` sets how images are read, and
    `switches` are settings of speed and repeatability. A training that diverged raises an error and
    writes no result. With `keep_diverged` the result is written and labelled as diverged, even if
    the training was completed by an earlier call.

    `trackers` are names of experiment trackers (docs/trackers.md), such as ["tensorboard"]. They
    get what log.jsonl and the result hold, and change no bit of the run.

    `teacher_from` is a checkpoint (a run's folder, `hub:…` or `builtin:NAME`), which becomes the
    offline teacher of the recipe: its logits of the training images are computed once. Of several
    checkpoints it is the log of the mean of their softmaxes.

    `data` are your own images and labels, {"train": (images, labels), "test": …}, for a recipe from
    `get_recipe("arrays", …, data=data)`: uint8 arrays or tensors with integer labels, or torch data
    sets. `idat_zoo.data.arrays` describes them in detail.

    Raises: ZooError or a subclass, whose hint is the remedy. Epochs that were saved stay on disk.
    """
    (outcome,) = run_many(
        [(recipe, seed)],
        device=device,
        data_dir=data_dir,
        data=data,
        reading=reading,
        out=out,
        resume=resume,
        wait=wait,
        keep_diverged=keep_diverged,
        download=download,
        teacher_from=teacher_from,
        switches=switches,
        trackers=trackers,
        progress=progress,
    )
    if isinstance(outcome, ZooError):
        raise outcome
    return outcome


def run_many(
    asked: Sequence[tuple[Recipe, int]],
    *,
    device: str = "auto",
    data_dir: Path | str | None = None,
    data: Data | None = None,
    reading: Reading | None = None,
    out: Path | str = "runs",
    resume: bool = False,
    wait: bool = False,
    keep_diverged: bool = False,
    download: bool = False,
    teacher_from: Reference | Sequence[Reference] | None = None,
    switches: Switches | None = None,
    stack: int | None = None,
    jobs: int = 1,
    trackers: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[Result | ZooError]:
    """Train several recipes, each with a seed, on one copy of each backbone; see `run`.

    Up to `stack` runs share one pass; None means as many as fit into memory on CUDA, and one
    elsewhere. `jobs` processes train at the same time, with equal shares of this process's threads,
    and on CUDA with a device each. Each run has its own folder. Returns the result of each run, or
    the error that ended it, in the order of `asked`; the error of one run does not affect the
    others.

    Raises: UsageError for an error that concerns all runs, or a run that is given twice; InputError
    for an object that is no recipe, or an invalid seed; what opening `teacher_from` raises.
    """
    teachers = () if teacher_from is None else open_teachers(teacher_from)
    if teachers:
        asked = [(with_offline_teachers(recipe, *teachers), seed) for recipe, seed in asked]
    arrays = None if data is None else read_arrays(data)
    progress = progress or Progress()
    inputs = Inputs(
        data_dir=None if data_dir is None else Path(data_dir),
        arrays=arrays,
        reading=reading or Reading(),
        download=download,
        teachers=teachers,
        listener=progress,
    )
    where = find_device(device)
    setup = set_up(where, switches, stack=stack, jobs=jobs)
    planned = plan(asked, out=Path(out), device=where, inputs=inputs)
    if arrays is not None:
        for one in planned:
            arrays.check_is(one.recipe.task)
    return train_planned(
        planned,
        setup,
        inputs,
        progress,
        resume=resume,
        wait=wait,
        keep_diverged=keep_diverged,
        trackers=trackers,
    )


def train_planned(
    planned: Sequence[Planned],
    setup: DeviceSetup,
    inputs: Inputs,
    progress: Progress,
    *,
    resume: bool = False,
    wait: bool = False,
    keep_diverged: bool = False,
    beside: bool = True,
    words: Sequence[str] = (),
    trackers: Sequence[str] = (),
    parts: Sequence[Sequence[int]] | None = None,
    on_outcome: Callable[[int, Outcome], None] = lambda position, outcome: None,
    train_turns: TrainTurns | None = None,
) -> list[Result | ZooError]:
    """Train planned runs; returns the result of each run, or its error, in their order.

    `beside` says whether a run that `resume` finds not begun names a similar run that may have been
    meant. `words` are the words of the command line. They are stored in the folder of each run
    until it is finished, so that the command can be repeated. `parts` are the positions of the runs
    that are trained together, where that was decided before; None means that it is decided now.
    `trackers` are names of experiment trackers, which get the epochs and the result of each run.
    `on_outcome` is called with the position and the outcome of each run as soon as it ends.
    `train_turns` trains the passes on other machines; None means processes of this one.

    Raises: UsageError for an error that concerns all runs, such as a tracker that is not installed.
    """
    tracking = Tracking(planned, find_trackers(trackers), progress)
    terms = Terms(
        inputs=inputs,
        asked=tuple(one.folder for one in planned),
        resume=resume,
        wait=wait,
        keep_diverged=keep_diverged,
        beside=beside,
        words=tuple(words),
    )
    outcomes = _Outcomes(planned, progress, on_outcome)
    for position, one in enumerate(planned):
        if not one.finished:
            with outcomes.of(position):
                check_carried(one.recipe)
    open_runs = outcomes.missing()
    _note_slowness([planned[position] for position in open_runs], setup, progress)
    _note_other_terms([planned[position] for position in open_runs], progress)
    if parts is None:
        parts = cut_turns(planned, open_runs, setup, progress, data_dir=inputs.data_dir)
    else:
        still_open = ([position for position in part if position in open_runs] for part in parts)
        parts = [part for part in still_open if part]
    turns = [
        Turn(
            number=number,
            positions=tuple(positions),
            runs=tuple(planned[position] for position in positions),
            of=len(parts),
            is_pass=not setup.one_at_a_time,
        )
        for number, positions in enumerate(parts, start=1)
    ]
    setup = replace(setup, jobs=max(1, min(setup.jobs, len(turns))))
    train = train_turns or (_train_here if setup.jobs == 1 else train_in_workers)
    with tracking, closing(train(turns, setup, terms, progress)) as settled:
        for position, outcome in settled:
            outcomes.settle(position, outcome)
            tracking.settle(position, outcome)
    return outcomes.in_order()


def _train_here(
    turns: Sequence[Turn], setup: DeviceSetup, terms: Terms, progress: Progress
) -> Generator[tuple[int, Outcome], None, None]:
    """Train turns in this process, one after the other; yields each run's position and outcome.

    Raises: TrainingError if another of the processes that train together has ended.
    """
    with computing(setup.switches, setup.device):
        for turn in turns:
            turn.announce(progress)
            for position, outcome in turn.train(setup, terms, progress):
                if setup.processes.lost and isinstance(outcome, ZooError):
                    raise outcome  # no other run can be trained either
                yield position, outcome


class _Outcomes:
    """The result or the error of each planned run, by its position."""

    def __init__(
        self,
        planned: Sequence[Planned],
        progress: Progress,
        on_outcome: Callable[[int, Outcome], None],
    ) -> None:
        self._planned, self._progress, self._on_outcome = planned, progress, on_outcome
        self._settled: dict[int, Result | ZooError] = {}

    def settle(self, position: int, outcome: Result | ZooError) -> None:
        """Record a run's outcome; of several runs, an error is reported to the listener."""
        self._settled[position] = outcome
        self._on_outcome(position, outcome)
        if isinstance(outcome, ZooError) and len(self._planned) > 1:
            one = self._planned[position]
            self._progress.failed(run_label(one.recipe, one.seed), outcome)

    @contextmanager
    def of(self, position: int) -> Iterator[None]:
        """An error in the block becomes the run's outcome; a UsageError ends all runs."""
        try:
            yield
        except UsageError:
            raise
        except ZooError as error:
            self.settle(position, error)

    def missing(self) -> list[int]:
        """The positions of runs without an outcome."""
        return [k for k in range(len(self._planned)) if k not in self._settled]

    def in_order(self) -> list[Result | ZooError]:
        """All outcomes, in the order of the runs."""
        return [self._settled[position] for position in range(len(self._planned))]


def _note_other_terms(runs: Sequence[Planned], progress: Progress) -> None:
    """Say for which unfinished runs another distillation term stands in."""
    notes = []
    for recipe in (one.recipe for one in runs if not one.finished and one.recipe.distils):
        task, asked = recipe.task, build_term(recipe.distillation)
        term = term_for(recipe.distillation, task.num_classes)
        if term.name != asked.name:
            notes.append(
                f"distillation '{asked.name}' needs {asked.least_classes} classes, and task "
                f"'{task.id}' has {task.num_classes}: '{term.name}' takes its place"
            )
    for note in dict.fromkeys(notes):
        progress.note(note)


def _note_slowness(runs: Sequence[Planned], setup: DeviceSetup, progress: Progress) -> None:
    """Say once for each number format of unfinished runs that it is slow on the device."""
    formats = dict.fromkeys(one.recipe.precision for one in runs if not one.finished)
    for slow in filter(None, (slowness(precision, setup.device) for precision in formats)):
        progress.note(f"{slow}; precision=float32 is the better choice")
