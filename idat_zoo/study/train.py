"""The training of a study: its planned runs in their passes, whichever are not finished yet."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from idat_zoo.data.reading import Reading
from idat_zoo.engine.precision import find_device
from idat_zoo.errors import EngineError, RunFolderError, UsageError, ZooError
from idat_zoo.results import Result
from idat_zoo.runs.device_setup import DeviceSetup, set_up
from idat_zoo.runs.folder import find_finished
from idat_zoo.runs.inputs import Inputs
from idat_zoo.runs.lock import alone_in, holder_of
from idat_zoo.runs.many import TrainTurns, train_planned
from idat_zoo.runs.plan import Planned, plan
from idat_zoo.runs.progress import Progress
from idat_zoo.runs.tracking import tell_finished
from idat_zoo.runs.turn import Outcome
from idat_zoo.study.design import Study
from idat_zoo.study.failures import MOST_FAILURES, UNUSABLE, Failures, in_one_line
from idat_zoo.study.plan import StudyPlan, store_plan
from idat_zoo.study.planning import agreed_plan, make_plan
from idat_zoo.switches import Switches

RUNS = Path("runs")
"""The folder above the folders of studies, unless a caller names one."""


@dataclass(frozen=True, kw_only=True)
class StudyOutcome:
    """The state of a study after a call, by the folders of its runs below `folder`.

    `results` are those of all finished runs. `failed` are the runs that failed in this call, with
    their errors. `left_out` are the runs that have failed three times, with the last message.
    `missing` are the runs whose images or weights are not on this machine, with what is missing.
    """

    folder: Path
    plan: StudyPlan
    results: Mapping[str, Result] = field(default_factory=dict)
    failed: Mapping[str, ZooError] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether every run has a result."""
        return len(self.results) == len(self.plan.runs)


def run_study(
    study: Study,
    *,
    out: Path | str | None = None,
    device: str = "auto",
    data_dir: Path | str | None = None,
    reading: Reading | None = None,
    download: bool = False,
    switches: Switches | None = None,
    stack: int | None = None,
    jobs: int = 1,
    retry: bool = False,
    replan: bool = False,
    trackers: Sequence[str] = (),
    progress: Progress | None = None,
    train_turns: TrainTurns | None = None,
) -> StudyOutcome:
    """Train all runs of a study that are not finished, and return the results of all.

    `out` is the study's folder, runs/NAME unless given. The plan is stored there by the first call;
    a later call with other runs is an error, or with `replan` makes the plan anew. A run that was
    interrupted goes on. A run that fails does not affect the others; after its third failure it is
    left out, unless `retry` forgets all failures. `train_turns` trains the passes on other
    machines, such as `SlurmExecutor(…).train`. The other arguments are those of `run_many`.

    Raises: UsageError if the study has other runs than its stored plan, or for an error that
    concerns all runs; RecipeError for recipes whose networks do not fit together; RunFolderError if
    another process trains the study, or its folder cannot be read or written.
    """
    progress = progress or Progress()
    folder = RUNS / study.name if out is None else Path(out)
    where = None if data_dir is None else Path(data_dir)
    setup = set_up(find_device(device), switches, stack=stack, jobs=jobs)
    fresh = make_plan(study, setup, data_dir=where)
    inputs = Inputs(
        data_dir=where, reading=reading or Reading(), download=download, listener=progress
    )
    settled = agreed_plan(fresh, folder, replan=replan)
    return train_plan(
        settled,
        folder,
        setup,
        inputs,
        progress,
        retry=retry,
        trackers=trackers,
        train_turns=train_turns,
    )


def plan_of_runs(
    settled: StudyPlan, folder: Path, setup: DeviceSetup, inputs: Inputs
) -> list[Planned]:
    """The runs of a plan, each once, ready to be trained below a study's folder."""
    asked = [(entry.recipe, entry.seed) for entry in settled.runs.values()]
    return plan(asked, out=folder, device=setup.device, inputs=inputs)


def train_plan(
    settled: StudyPlan,
    folder: Path,
    setup: DeviceSetup,
    inputs: Inputs,
    progress: Progress,
    *,
    retry: bool = False,
    words: Sequence[str] = (),
    trackers: Sequence[str] = (),
    train_turns: TrainTurns | None = None,
) -> StudyOutcome:
    """Store a plan in a study's folder and train its runs; see `run_study`.

    `words` are the words of the command line, which the folder of a run keeps until it is finished.
    """
    busy = "It trains this study; `idat study status` shows what is finished."
    with alone_in(folder, wait=False, note=progress.note, hint=busy):
        store_plan(settled, folder)
        training = _Training(settled, folder, setup, inputs, progress)
        return training.train(retry=retry, words=words, trackers=trackers, train_turns=train_turns)


def open_passes(
    settled: StudyPlan,
    folder: Path,
    setup: DeviceSetup,
    inputs: Inputs,
    progress: Progress,
    *,
    retry: bool = False,
    elsewhere: bool = False,
) -> list[int]:
    """Store a plan in a study's folder; the numbers, from 1, of the passes with runs to train.

    With `elsewhere`, runs whose images or weights are not on this machine count too.
    """
    with alone_in(folder, wait=False, note=progress.note):
        store_plan(settled, folder)
        training = _Training(settled, folder, setup, inputs, progress)
        open_runs = training.open_runs(retry=retry, elsewhere=elsewhere)
    return [n for n, own in enumerate(settled.passes, start=1) if open_runs.intersection(own)]


def one_pass(stored: StudyPlan, number: int) -> StudyPlan:
    """The part of a plan that is its pass `number`, from 1.

    Raises: UsageError for a pass that the plan does not have.
    """
    if not 1 <= number <= len(stored.passes):
        raise UsageError(
            f"study '{stored.name}' has no pass {number}; they are 1 to {len(stored.passes)}."
        )
    own = stored.passes[number - 1]
    entries = tuple(one for one in stored.entries if one.folder in own)
    return stored.model_copy(update={"passes": (own,), "entries": entries})


def train_pass(
    part: StudyPlan,
    folder: Path,
    setup: DeviceSetup,
    inputs: Inputs,
    progress: Progress,
    *,
    retry: bool = False,
    words: Sequence[str] = (),
    trackers: Sequence[str] = (),
) -> StudyOutcome:
    """Train one pass of a plan that a study's folder holds; see `one_pass` and `train_plan`.

    The outcome covers the runs of the pass. The folder is not locked: other processes may train
    other passes at the same time.
    """
    training = _Training(part, folder, setup, inputs, progress)
    return training.train(retry=retry, words=words, trackers=trackers, train_turns=None)


class _Training:
    """One call's training of a study, whose folder is locked."""

    def __init__(
        self,
        settled: StudyPlan,
        folder: Path,
        setup: DeviceSetup,
        inputs: Inputs,
        progress: Progress,
    ) -> None:
        self._plan, self._folder, self._inputs = settled, folder, inputs
        self._setup, self._progress = replace(setup, stack=settled.stack), progress
        self._failures = Failures(folder)
        self._planned = plan_of_runs(settled, folder, setup, inputs)
        self._asked: list[Planned] = []

    def train(
        self,
        *,
        retry: bool,
        words: Sequence[str],
        trackers: Sequence[str],
        train_turns: TrainTurns | None,
    ) -> StudyOutcome:
        """Train the runs that are neither left out nor lack their inputs."""
        left_out, missing, results, failed = self._settled_before(retry=retry)
        tell_finished(len(results), trackers, self._progress)  # they are not among the asked
        settled = {*left_out, *missing, *results, *failed}
        self._asked = [one for one in self._planned if self._run(one) not in settled]
        places = {self._run(one): place for place, one in enumerate(self._asked)}
        parts = [[places[run] for run in own if run in places] for own in self._plan.passes]
        outcomes = train_planned(
            self._asked,
            self._setup,
            self._inputs,
            self._progress,
            resume=True,
            beside=False,  # the plan says which runs are meant
            words=words,
            parts=[part for part in parts if part],
            on_outcome=self._settle,
            trackers=trackers,
            train_turns=train_turns,
        )
        by_run = {self._run(one): own for one, own in zip(self._asked, outcomes, strict=True)}
        return StudyOutcome(
            folder=self._folder,
            plan=self._plan,
            results=results | {r: own for r, own in by_run.items() if isinstance(own, Result)},
            failed=failed | {r: own for r, own in by_run.items() if isinstance(own, ZooError)},
            left_out=left_out,
            missing=missing,
        )

    def open_runs(self, *, retry: bool, elsewhere: bool) -> set[str]:
        """The runs that `train` would train; `elsewhere` all inputs are there."""
        settled = set[str]().union(*self._settled_before(retry=retry, elsewhere=elsewhere))
        return {self._run(one) for one in self._planned} - settled

    def _settled_before(
        self, *, retry: bool, elsewhere: bool = False
    ) -> tuple[dict[str, str], dict[str, tuple[str, ...]], dict[str, Result], dict[str, ZooError]]:
        """The runs that are left out, lack their inputs, are finished, or cannot be read."""
        if retry:
            for run in list(self._failures.of):
                self._failures.forget(run)
        return self._left_out(), {} if elsewhere else self._missing(), *self._finished()

    def _run(self, one: Planned) -> str:
        """The folder of a run below the study's folder, by which the plan names it."""
        return one.folder.relative_to(self._folder).as_posix()

    def _finished(self) -> tuple[dict[str, Result], dict[str, ZooError]]:
        """The results of the runs that were finished before, and the errors of unreadable ones."""
        results, failed = {}, {}
        for one in (one for one in self._planned if one.finished):
            try:
                found = find_finished(one.folder, one.recipe, out=self._folder)
            except ZooError as error:
                failed[self._run(one)] = error
                self._progress.note(f"{UNUSABLE}: {in_one_line(error)}")
            else:
                if found is not None:
                    results[self._run(one)] = found
        return results, failed

    def _settle(self, position: int, outcome: Outcome) -> None:
        """Count a failure, and say it in one line; a run that has ended well has none any more."""
        run = self._run(self._asked[position])
        if isinstance(outcome, Result):
            with suppress(RunFolderError):  # the result counts, whatever failures.json says
                self._failures.forget(run)
            return
        holder = holder_of(self._folder / run)
        if holder is not None and holder.pid != os.getpid() and isinstance(outcome, RunFolderError):
            self._progress.note(f"trained by {holder}: {self._plan.runs[run]}")
            return
        if isinstance(outcome, EngineError):
            self._progress.note(f"not trained: {self._plan.runs[run]}: {in_one_line(outcome)}")
            return
        try:
            failure = self._failures.add(run, outcome)
            count = f"failed ({failure.count} of {MOST_FAILURES} times)"
        except RunFolderError:  # a full disk, of which the run's own error tells
            count = "failed"
        self._progress.note(f"{count}: {self._plan.runs[run]}: {in_one_line(outcome)}")

    def _left_out(self) -> dict[str, str]:
        messages = self._failures.final
        final = {
            self._run(one): messages[self._run(one)]
            for one in self._planned
            if not one.finished and self._run(one) in messages
        }
        for run, message in final.items():
            self._progress.note(
                f"left out, as it failed {MOST_FAILURES} times (--retry tries again): "
                f"{self._plan.runs[run]}: {message}"
            )
        return final

    def _missing(self) -> dict[str, tuple[str, ...]]:
        """The unfinished runs whose inputs are not here; each missing input is told once."""
        lacking = {
            self._run(one): one.missing for one in self._planned if one.missing and not one.finished
        }
        for what in dict.fromkeys(what for own in lacking.values() for what in own):
            count = sum(what in own for own in lacking.values())
            runs = "1 run waits" if count == 1 else f"{count} runs wait"
            self._progress.note(f"{runs} for {what}")
        return lacking
