"""The executor for Slurm clusters: each turn is one element of a job array, submitted by submitit.

A job that reaches its time limit, or is preempted, is requeued and goes on. What submitit writes
(scripts, logs, pickled orders) lies in `slurm/NAME/` in the study's folder, with the runs of each
element in turns.json; NAME is also the name of the jobs. When the calling process ends, its jobs go
on, and a later call for the same runs takes them up instead of submitting them again.

submitit's own watch over jobs is not used: it asks for Slurm's accounts, which a cluster may lack,
and then never learns that a job was killed.
"""

import json
import re
import secrets
import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from idat_zoo import files
from idat_zoo.errors import TrainingError, UsageError
from idat_zoo.executors.order import Order, make_order, train_order
from idat_zoo.executors.slurm_job import Element, follow, is_over, last_line, outcomes_of, went_well
from idat_zoo.executors.slurm_queue import NoAnswerError, check_cluster, read_queue
from idat_zoo.runs.device_setup import DeviceSetup
from idat_zoo.runs.progress import Progress
from idat_zoo.runs.turn import Outcome, Terms, Turn
from idat_zoo.runs.workers import THREAD_VARIABLES
from idat_zoo.values import Frozen

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

FOLDER = "slurm"
TURNS_FILE = "turns.json"
LARGEST_ARRAY = 1000
"""Elements of one array: Slurm's MaxArraySize is 1001 unless it is configured."""
MOST_TIMEOUTS = 1000
"""The number of time limits after which a job is not requeued any more."""
WARNING = 90
"""Seconds before its time limit at which a job is requeued; at most a quarter of the limit."""
SHORTEST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds between two questions to Slurm, which become rarer while nothing happens."""
TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<fields>\d+(?::\d+){0,2})")


class SlurmOptions(Frozen):
    """The options of a job; those that are left out are the cluster's own defaults.

    `time` is a limit in Slurm's words: minutes, hours:minutes:seconds or days-hours. `cpus` is also
    the number of threads that a run computes with. `mem` is in Slurm's words, such as 8G.
    `array_parallelism` is the largest number of jobs at the same time.
    """

    partition: str | None = None
    time: str = "60"
    cpus: int = Field(default=1, ge=1)
    gpus: int = Field(default=0, ge=0)
    mem: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    array_parallelism: int = Field(default=256, ge=1)


def minutes_of(time: str) -> int:
    """A time limit in whole minutes, at least 1. Raises: UsageError for a text that is none."""
    found = TIME.fullmatch(time.strip())
    if found is None:
        raise UsageError(
            f"'{time}' is no time limit of Slurm.",
            hint="Write minutes, or hours:minutes:seconds, or days-hours.",
        )
    numbers = [int(number) for number in found["fields"].split(":")]
    if found["days"] is not None:
        units = (3600, 60, 1)
    else:
        units = {1: (60,), 2: (60, 1), 3: (3600, 60, 1)}[len(numbers)]  # type: ignore[assignment]
    seconds = sum(number * unit for number, unit in zip(numbers, units, strict=False))
    return max(1, (int(found["days"] or 0) * 86400 + seconds + 59) // 60)


class TrainOrder:
    """An order as the function that submitit pickles. It is the same after each requeue."""

    def __init__(self, order: Order) -> None:
        self.order = order

    def __call__(self) -> dict[Path, Outcome] | UsageError:
        """The outcome of each run by its folder, or the error that concerns all runs."""
        try:
            return train_order(self.order)
        except UsageError as error:
            return error

    def checkpoint(self) -> "DelayedSubmission":
        """What is submitted when the job is requeued: the same, since training always resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class SlurmExecutor:
    """Trains turns as jobs of a Slurm cluster; `folder` is the study's, on a shared disk."""

    def __init__(self, options: SlurmOptions, *, folder: Path) -> None:
        self.options, self.folder = options, folder.resolve() / FOLDER

    def check(self) -> None:
        """Raises: UsageError, in one line, if no job can be submitted with these options."""
        minutes_of(self.options.time)
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise UsageError(
                "Slurm jobs are submitted by submitit, which is not installed.",
                hint="pip install 'idat-zoo[slurm]'",
            ) from None
        check_cluster(self.options.partition)

    def train(
        self, turns: Sequence[Turn], setup: DeviceSetup, terms: Terms, progress: Progress
    ) -> Generator[tuple[int, Outcome], None, None]:
        """Train turns as jobs; yields each run's position and outcome, as the jobs end.

        Turns whose runs are all finished need no job. When the generator is closed, jobs go on.

        Raises: UsageError for an error that concerns all runs, or if no job can be submitted.
        """
        waiting = list[Turn]()
        for turn in turns:
            if all(one.finished for one in turn.runs):
                yield from turn.train(setup, terms, progress)
            else:
                waiting.append(turn)
        if not waiting:
            return
        self.check()
        orders = {
            turn.number: make_order(turn, setup, terms, threads=self.options.cpus)
            for turn in waiting
        }
        elements = list(self._taken_up(waiting, progress))
        taken = {element.turn.number for element in elements}
        rest = [turn for turn in waiting if turn.number not in taken]
        try:
            for start in range(0, len(rest), LARGEST_ARRAY):
                part = rest[start : start + LARGEST_ARRAY]
                try:
                    elements += self._submit(part, orders, progress)
                except _RefusedError as error:
                    failure = TrainingError(f"Slurm refused the job: {error}")
                    yield from ((place, failure) for turn in part for place in turn.positions)
            yield from self._watch(elements, progress)
        except (GeneratorExit, KeyboardInterrupt):
            self._say_what_goes_on(elements, progress)
            raise
        finally:
            self._tidy({element.folder for element in elements})

    def _taken_up(self, turns: Sequence[Turn], progress: Progress) -> Iterator[Element]:
        """The jobs of an earlier call that train the same turns, and have not ended."""
        by_runs = {_runs_of(turn): turn for turn in turns}
        stored = {file.parent: file for file in self.folder.glob(f"*/{TURNS_FILE}")}
        try:
            queue = read_queue(folder.name for folder in stored)
        except NoAnswerError as error:
            raise UsageError(f"Slurm does not list its jobs: {error}") from None
        for job in (job for job in queue.values() if not job.has_ended):
            folder = self.folder / job.name
            turn = by_runs.pop(tuple(_turns_in(stored[folder])[job.element]), None)
            if turn is not None:
                progress.note(f"Slurm job {job.id} of an earlier call goes on: {job.state.lower()}")
                yield Element(turn, job.id, folder, seen=True)

    def _submit(
        self, turns: Sequence[Turn], orders: dict[int, Order], progress: Progress
    ) -> list[Element]:
        """Submit one array. Raises: _RefusedError if Slurm does not take it."""
        import submitit

        folder = self.folder / f"idat-{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        files.write_whole(
            folder / TURNS_FILE, files.dump_json({"turns": [_runs_of(turn) for turn in turns]})
        )
        executor = submitit.SlurmExecutor(folder, max_num_timeout=MOST_TIMEOUTS)
        executor.update_parameters(**self._parameters(folder.name))
        try:
            with executor.batch():
                jobs = [executor.submit(TrainOrder(orders[turn.number])) for turn in turns]
        except submitit.core.utils.FailedJobError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise _RefusedError(last_line(str(error))) from None
        array = jobs[0].job_id.partition("_")[0]
        progress.note(f"Slurm job {array}: {len(turns)} pass{'es' if len(turns) > 1 else ''}")
        return [Element(turn, job.job_id, folder) for turn, job in zip(turns, jobs, strict=True)]

    def _parameters(self, name: str) -> dict[str, Any]:
        """The parameters of submitit's submission."""
        own = self.options
        minutes = minutes_of(own.time)
        words = {key: getattr(own, key) for key in ("partition", "account", "qos", "constraint")}
        return {
            "job_name": name,
            "time": minutes,
            "signal_delay_s": min(WARNING, minutes * 60 // 4),
            "cpus_per_task": own.cpus,
            "array_parallelism": own.array_parallelism,
            "setup": [f"export {variable}={own.cpus}" for variable in THREAD_VARIABLES],
            "srun_args": [f"--cpus-per-task={own.cpus}"],  # srun does not take it from sbatch
            "additional_parameters": {"requeue": True, "wckey": ""}
            | ({"mem": own.mem} if own.mem else {}),
            **({"gpus_per_node": own.gpus} if own.gpus else {}),
            **{key: word for key, word in words.items() if word is not None},
        }

    def _watch(
        self, elements: Sequence[Element], progress: Progress
    ) -> Iterator[tuple[int, Outcome]]:
        """Wait for jobs; yields the outcomes of each that has ended. Raises: UsageError of one."""
        left, pause, asked, unheard = list(elements), SHORTEST_WAIT, 0.0, ""
        while left:
            for element in list(left):
                if element.file("result.pkl").exists() or is_over(element):
                    left.remove(element)
                    pause = SHORTEST_WAIT
                    yield from outcomes_of(element)
            if not left:
                return
            time.sleep(SHORTEST_WAIT)
            if time.monotonic() - asked < pause:
                continue
            asked, pause = time.monotonic(), min(2 * pause, LONGEST_WAIT)
            try:
                queue = read_queue(dict.fromkeys(element.name for element in left))
            except NoAnswerError as error:
                if unheard != str(error):
                    progress.note(f"Slurm does not answer, and is asked again: {error}")
                unheard = str(error)
                continue
            unheard = ""
            for element in left:
                follow(element, queue.get(element.job_id), progress)

    def _say_what_goes_on(self, elements: Sequence[Element], progress: Progress) -> None:
        left = [one for one in elements if not one.file("result.pkl").exists()]
        if not left:
            return
        arrays = dict.fromkeys(element.job_id.partition("_")[0] for element in left)
        progress.note(
            f"Slurm jobs go on: {', '.join(element.job_id for element in left)}. The same command "
            f"takes them up again; `scancel {' '.join(arrays)}` ends them."
        )

    def _tidy(self, folders: set[Path]) -> None:
        """Remove the files of arrays of which every job has ended well."""
        for folder in folders:
            count = len(_turns_in(folder / TURNS_FILE))
            results = list(folder.glob("*_result.pkl"))
            if len(results) == count and all(map(went_well, results)):
                shutil.rmtree(folder, ignore_errors=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


class _RefusedError(Exception):
    """Slurm did not take a job; what it said."""


def _runs_of(turn: Turn) -> tuple[str, ...]:
    return tuple(str(one.folder.resolve()) for one in turn.runs)


def _turns_in(file: Path) -> list[list[str]]:
    """The folders of the runs of each element of an array."""
    turns: list[list[str]] = json.loads(file.read_bytes())["turns"]
    return turns
