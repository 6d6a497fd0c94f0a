"""The training of one recipe or of many: the functions that turn recipes and seeds into results."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from idat_zoo.backbones.pair import check_carried
from idat_zoo.data.arrays import Data, read_arrays
from idat_zoo.data.reading import Reading
from idat_zoo.engine.precision import computing, find_device
from idat_zoo.engine.timing import slowness
from idat_zoo.errors import RunFolderError, UsageError, ZooError
from idat_zoo.recipe import Recipe
from idat_zoo.results import Result
from idat_zoo.runs.device_setup import DeviceSetup, set_up
from idat_zoo.runs.finish import finish
from idat_zoo.runs.folder import (
    check_resumable,
    find_finished,
    keep_call,
    keep_fault,
    run_label,
    tell_beside,
)
from idat_zoo.runs.inputs import Inputs
from idat_zoo.runs.loaded import LoadedRun, load_run
from idat_zoo.runs.lock import alone_in
from idat_zoo.runs.memory_errors import plain_memory_errors
from idat_zoo.runs.passes import train_all
from idat_zoo.runs.plan import Planned, plan
from idat_zoo.runs.progress import Progress
from idat_zoo.runs.saved_state import diverged_before
from idat_zoo.runs.selection import select, with_values
from idat_zoo.switches import Switches


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
    switches: Switches | None = None,
    progress: Progress | None = None,
) -> Result:
    """Train a recipe, write its run folder, and return its result.

    A finished run is not repeated: its result is returned. An unfinished run needs `resume`. If
    another process is training the run, that is an error, or with `wait` its result is awaited.
    `download` allows downloading missing backbone weights, `reading` sets how images are read, and
    `switches` are settings of speed and repeatability. A training that diverged raises an error and
    writes no result. With `keep_diverged` the result is written and labelled as diverged, even if
    the training was completed by an earlier call.

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
        switches=switches,
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
    switches: Switches | None = None,
    stack: int | None = None,
    progress: Progress | None = None,
) -> list[Result | ZooError]:
    """Train several recipes, each with a seed, on one copy of each backbone; see `run`.

    Up to `stack` runs share one pass; None means as many as fit into memory on CUDA, and one
    elsewhere. Each run has its own folder. Returns the result of each run, or the error that ended
    it, in the order of `asked`; the error of one run does not affect the others.

    Raises: UsageError for an error that concerns all runs, or a run that is given twice; InputError
    for an object that is no recipe, or an invalid seed.
    """
    arrays = None if data is None else read_arrays(data)
    progress = progress or Progress()
    inputs = Inputs(
        data_dir=None if data_dir is None else Path(data_dir),
        arrays=arrays,
        reading=reading or Reading(),
        download=download,
        listener=progress,
    )
    where = find_device(device)
    setup = set_up(where, switches, stack=stack)
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
    words: Sequence[str] = (),
) -> list[Result | ZooError]:
    """Train planned runs; returns the result of each run, or its error, in their order.

    `words` are the words of the command line. They are stored in the folder of each run until it is
    finished, so that the command can be repeated.

    Raises: UsageError for an error that concerns all runs.
    """
    outcomes = _Outcomes(planned, progress)
    for position, one in enumerate(planned):
        if not one.finished:
            with outcomes.of(position):
                check_carried(one.recipe)
    open_runs = outcomes.missing()
    noted = set[str]()
    with computing(setup.switches, setup.device):
        turns = [[position] for position in open_runs] if setup.one_at_a_time else [open_runs]
        for number, positions in enumerate(turns, start=1):
            progress.run(number, of=len(turns))
            with ExitStack() as locks:
                claims: dict[int, Callable[[], None]] = {}
                in_order = sorted(positions, key=lambda position: planned[position].folder)
                for position in in_order:  # the same order in all processes, so no deadlock
                    with outcomes.of(position):
                        claim = _claim(
                            planned[position],
                            locks,
                            progress,
                            resume=resume,
                            wait=wait,
                            keep_diverged=keep_diverged,
                            asked=[one.folder for one in planned],
                        )
                        if isinstance(claim, Result):
                            outcomes.settle(position, claim)
                        else:
                            claims[position] = claim
                loaded: dict[int, LoadedRun] = {}
                for position in positions:
                    if position in claims:
                        with outcomes.of(position):
                            one = planned[position]
                            _note_slowness(one.recipe, setup, progress, noted)
                            progress.doing(one.recipe.task.id, "loading images")
                            run = load_run(one, inputs, claims[position])
                            keep_call(one.folder, words=words, data_dir=inputs.data_dir)
                            loaded[position] = run
                places, runs = list(loaded), list(loaded.values())
                completed = _complete(runs, setup, progress, keep_diverged=keep_diverged)
                for place, outcome in completed:
                    if isinstance(outcome, ZooError):
                        _keep_error(runs[place], outcome)
                    outcomes.settle(places[place], outcome)
    return outcomes.in_order()


class _Outcomes:
    """The result or the error of each planned run, by its position."""

    def __init__(self, planned: Sequence[Planned], progress: Progress) -> None:
        self._planned, self._progress = planned, progress
        self._settled: dict[int, Result | ZooError] = {}

    def settle(self, position: int, outcome: Result | ZooError) -> None:
        """Record a run's outcome; of several runs, an error is reported to the listener."""
        self._settled[position] = outcome
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


def _claim(
    one: Planned,
    locks: ExitStack,
    progress: Progress,
    *,
    resume: bool,
    wait: bool,
    keep_diverged: bool,
    asked: Sequence[Path],
) -> Result | Callable[[], None]:
    """The result of a finished run, or a claim on its folder, which `locks` hold.

    The claim is a function that raises a RunFolderError once another process has the folder.

    Raises: RunFolderError where the run cannot begin or go on; DivergedError where it diverged.
    """
    finished = find_finished(one.folder, one.recipe, out=one.out)
    if finished is None:
        still_ours = locks.enter_context(alone_in(one.folder, wait=wait, note=progress.note))
        finished = find_finished(one.folder, one.recipe, out=one.out)  # by whom we waited for
    if finished is not None:
        progress.note(f"finished before: {one.folder}")
        return finished
    diverged = diverged_before(one.folder, one.recipe)
    if diverged is not None and not keep_diverged:
        raise diverged
    check_resumable(one.folder, resume=resume or diverged is not None)
    beside = tell_beside(one.folder, one.recipe, asked=asked)
    if resume and beside:
        progress.note(beside)
    return still_ours


def _note_slowness(recipe: Recipe, setup: DeviceSetup, progress: Progress, noted: set[str]) -> None:
    """Say once for each number format that it is slow on the device."""
    slow = slowness(recipe.precision, setup.device)
    if slow and slow not in noted:
        noted.add(slow)
        progress.note(f"{slow}; precision=float32 is the better choice")


def _keep_error(run: LoadedRun, error: ZooError) -> None:
    """Write the error that ended a run into its folder."""
    if isinstance(error, RunFolderError) and isinstance(error.__cause__, OSError):
        error.hint += " What was saved is kept: --resume goes on with it."
    with suppress(RunFolderError):  # another process has the folder, or the disk is full
        run.still_ours()
        keep_fault(run.planned.folder, error)


def _complete(
    runs: Sequence[LoadedRun], setup: DeviceSetup, progress: Progress, *, keep_diverged: bool
) -> Iterator[tuple[int, Result | ZooError]]:
    """Select candidates, train and finish; yields the position of each run and its outcome."""
    choosing = [k for k, run in enumerate(runs) if run.planned.recipe.selection == "val"]
    found = select([runs[k] for k in choosing], setup, progress)
    selections = dict(zip(choosing, found, strict=True))
    positions, trainings = [], []
    for position, run in enumerate(runs):
        selection = selections.get(position)
        if isinstance(selection, ZooError):
            yield position, selection
            continue
        recipe = run.planned.recipe
        if selection is not None:
            recipe = with_values(recipe, selection.tried[selection.chosen].values)
        positions.append(position)
        trainings.append(run.training("trainval", recipe))
    for number, outcome in train_all(trainings, setup, progress):
        position = positions[number]
        if isinstance(outcome, ZooError):
            yield position, outcome
            continue
        if outcome.divergence is not None and not keep_diverged:
            yield position, outcome.divergence
            continue
        run, selection = runs[position], selections.get(position)
        assert not isinstance(selection, ZooError)
        progress.doing(run.planned.recipe.task.id, "evaluating on test")
        final = trainings[number].recipe
        try:
            with plain_memory_errors(final):
                result = finish(run, outcome, final=final, selection=selection)
        except ZooError as error:
            yield position, error
        else:
            yield position, result
