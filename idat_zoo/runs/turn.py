"""A turn: runs whose folders are locked, and which are loaded and trained, at the same time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from idat_zoo.candidates import with_values
from idat_zoo.data.reading import Listener
from idat_zoo.errors import RunFolderError, UsageError, ZooError
from idat_zoo.results import Result
from idat_zoo.runs.device_setup import DeviceSetup
from idat_zoo.runs.ensemble import has_diverged, train_last
from idat_zoo.runs.finish import finish, finish_ensemble
from idat_zoo.runs.folder import (
    check_resumable,
    find_finished,
    keep_call,
    keep_fault,
    tell_beside,
)
from idat_zoo.runs.inputs import Inputs
from idat_zoo.runs.loaded import LoadedRun, load_run
from idat_zoo.runs.lock import alone_in
from idat_zoo.runs.memory_errors import plain_memory_errors
from idat_zoo.runs.plan import Planned
from idat_zoo.runs.progress import Progress
from idat_zoo.runs.selection import select

Outcome: TypeAlias = Result | ZooError
"""The result of a run, or the error that ended it."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What holds for all turns of one call.

    `asked` are the folders of all its runs. `beside` says whether a run that `resume` finds not
    begun names a similar run that may have been meant. `words` are the words of the command line.
    They are stored in the folder of each run until it is finished, so that the command can be
    repeated.
    """

    inputs: Inputs
    asked: tuple[Path, ...]
    resume: bool = False
    beside: bool = True
    wait: bool = False
    keep_diverged: bool = False
    words: tuple[str, ...] = ()

    def heard_by(self, listener: Listener) -> "Terms":
        """The terms with another listener for the reading of images."""
        return replace(self, inputs=replace(self.inputs, listener=listener))


@dataclass(frozen=True, kw_only=True)
class Turn:
    """The runs of a turn, and their positions in the call; it is turn `number` of `of`.

    `is_pass` says that the turn may hold several runs, which then share passes.
    """

    runs: tuple[Planned, ...]
    positions: tuple[int, ...]
    number: int
    of: int
    is_pass: bool

    def announce(self, progress: Progress) -> None:
        """Tell the listener which run begins; a pass is named in the messages of its training."""
        if self.is_pass:
            progress.run(1, of=1)
        else:
            progress.run(self.number, of=self.of)

    def train(
        self, setup: DeviceSetup, terms: Terms, progress: Progress
    ) -> Iterator[tuple[int, Outcome]]:
        """Train the runs; yields the position of each in the call, and its outcome.

        Raises: UsageError for an error that concerns all runs of the call.
        """
        name = f"pass {self.number} of {self.of}" if self.is_pass and self.of > 1 else ""
        for place, outcome in _train(self.runs, setup, terms, progress, name=name):
            yield self.positions[place], outcome


def _train(
    runs: Sequence[Planned], setup: DeviceSetup, terms: Terms, progress: Progress, *, name: str
) -> Iterator[tuple[int, Outcome]]:
    """Lock, load and train; the folders stay locked until the last outcome is taken."""
    with ExitStack() as locks:
        claims: dict[int, Callable[[], None]] = {}
        in_order = sorted(range(len(runs)), key=lambda position: runs[position].folder)
        for position in in_order:  # the same order in all processes, so no deadlock
            try:
                claim = _claim(runs[position], locks, terms, progress)
            except UsageError:
                raise
            except ZooError as error:
                yield position, error
                continue
            if isinstance(claim, Result):
                yield position, claim
            else:
                claims[position] = claim
        loaded: dict[int, LoadedRun] = {}
        for position, one in enumerate(runs):
            if position in claims:
                progress.doing(one.recipe.task.id, "loading images")
                try:
                    run = load_run(one, terms.inputs, claims[position])
                    keep_call(one.folder, words=terms.words, data_dir=terms.inputs.data_dir)
                except UsageError:
                    raise
                except ZooError as error:
                    yield position, error
                else:
                    loaded[position] = run
        places, ready = list(loaded), list(loaded.values())
        for place, outcome in _complete(ready, setup, terms, progress, name=name):
            if isinstance(outcome, ZooError):
                _keep_error(ready[place], outcome)
            yield places[place], outcome


def _claim(
    one: Planned, locks: ExitStack, terms: Terms, progress: Progress
) -> Result | Callable[[], None]:
    """The result of a finished run, or a claim on its folder, which `locks` hold.

    The claim is a function that raises a RunFolderError once another process has the folder.

    Raises: RunFolderError where the run cannot begin or go on; DivergedError where it diverged.
    """
    finished = find_finished(one.folder, one.recipe, out=one.out)
    if finished is None:
        still_ours = locks.enter_context(alone_in(one.folder, wait=terms.wait, note=progress.note))
        finished = find_finished(one.folder, one.recipe, out=one.out)  # by whom we waited for
    if finished is not None:
        progress.note(f"finished before: {one.folder}")
        return finished
    diverged = has_diverged(one)
    if diverged is not None and not terms.keep_diverged:
        raise diverged
    check_resumable(one.folder, resume=terms.resume or diverged is not None)
    if terms.resume and terms.beside:
        similar = tell_beside(one.folder, one.recipe, asked=terms.asked)
        if similar:
            progress.note(similar)
    return still_ours


def _keep_error(run: LoadedRun, error: ZooError) -> None:
    """Write the error that ended a run into its folder."""
    if isinstance(error, RunFolderError) and isinstance(error.__cause__, OSError):
        error.hint += " What was saved is kept: --resume goes on with it."
    with suppress(RunFolderError):  # another process has the folder, or the disk is full
        run.still_ours()
        keep_fault(run.planned.folder, error)


def _complete(
    runs: Sequence[LoadedRun], setup: DeviceSetup, terms: Terms, progress: Progress, *, name: str
) -> Iterator[tuple[int, Outcome]]:
    """Select candidates, train and finish; yields the position of each run and its outcome."""
    choosing = [k for k, run in enumerate(runs) if run.planned.recipe.selection == "val"]
    found = select([runs[k] for k in choosing], setup, progress)
    selections = dict(zip(choosing, found, strict=True))
    positions, last = [], []
    for position, run in enumerate(runs):
        selection = selections.get(position)
        if isinstance(selection, ZooError):
            yield position, selection
            continue
        recipe = run.planned.recipe
        if selection is not None:
            (chosen,) = selection.values
            recipe = with_values(recipe, chosen)
        positions.append(position)
        last.append((run, recipe))
    for note in dict.fromkeys(_on_train_alone(run) for run in runs if run.final_split == "train"):
        progress.note(note)
    outcomes = train_last(last, setup, progress, name=name, keep_diverged=terms.keep_diverged)
    for number, outcome in outcomes:
        position = positions[number]
        if isinstance(outcome, ZooError):
            yield position, outcome
            continue
        run, selection = runs[position], selections.get(position)
        assert not isinstance(selection, ZooError)
        progress.doing(run.planned.recipe.task.id, "evaluating on test")
        final = last[number][1]
        try:
            with plain_memory_errors(final):
                if final.selection == "ensemble":
                    result = finish_ensemble(run, outcome)
                else:
                    result = finish(run, outcome[0], final=final, selection=selection)
        except ZooError as error:
            yield position, error
        else:
            yield position, result


def _on_train_alone(run: LoadedRun) -> str:
    """The note on a run whose val images are watched, and not trained on."""
    count = len(run.views["student"].train)
    return (
        f"watch=val: {run.planned.recipe.task.id} is trained on the {count} images of train alone"
    )
