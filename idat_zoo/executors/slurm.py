"""The executor for Slurm clusters: each turn is one element of a job array, submitted by submitit.

A job that reaches its time limit, or is preempted, is requeued and goes on. When the calling
process ends, its jobs go on, and a later call for the same runs takes them up instead of submitting
them again. What submitit writes (scripts, logs, pickled orders) lies in the study's folder.

submitit's own watch over jobs is not used: it asks for Slurm's accounts, which a cluster may lack,
and then never learns that a job was killed.
"""

import io
import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idat_zoo.errors import RunFolderError, TrainingError, UsageError, way_to_write
from idat_zoo.executors.executor import answer_finished
from idat_zoo.executors.order import Order, make_order, train_order
from idat_zoo.executors.slurm_arrays import queued_jobs, remove_finished, store_array
from idat_zoo.executors.slurm_job import Element, follow, is_over, last_line, outcomes_of, runs_of
from idat_zoo.executors.slurm_options import SlurmOptions, minutes_of, parameters_of
from idat_zoo.executors.slurm_queue import NoAnswerError, check_cluster, read_queue
from idat_zoo.runs.device_setup import DeviceSetup
from idat_zoo.runs.progress import Progress
from idat_zoo.runs.turn import Outcome, Terms, Turn
from idat_zoo.runs.workers import THREAD_VARIABLES

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

LARGEST_ARRAY = 1000
"""Elements of one array: Slurm's MaxArraySize is 1001 unless it is configured."""
MOST_TIMEOUTS = 1000
"""The number of time limits after which a job is not requeued any more."""
WARNING = 90
"""Seconds before its time limit at which a job is requeued; at most a quarter of the limit."""
SHORTEST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds between two questions to Slurm, which become rarer while nothing happens."""


class TrainOrder:
    """An order as the function that submitit pickles. It is the same after each requeue."""

    def __init__(self, order: Order) -> None:
        self.order, self.names = order, runs_of(order.turn)

    def __call__(self) -> dict[str, Outcome] | UsageError:
        """The outcome of each run by its absolute folder, or the error that concerns all runs."""
        try:
            outcomes = train_order(self.order)
        except UsageError as error:
            return error
        named = zip(self.names, self.order.turn.runs, strict=True)
        return {name: outcomes[one.folder] for name, one in named if one.folder in outcomes}

    def checkpoint(self) -> "DelayedSubmission":
        """What is submitted when the job is requeued: the same, since training always resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class SlurmExecutor:
    """Trains turns as jobs of Slurm; `folder` is that of the study, which all nodes must see."""

    def __init__(self, options: SlurmOptions, *, folder: Path) -> None:
        self.options, self.folder = options, folder

    def check(self) -> None:
        """Check that submitit is installed, Slurm's controller answers and the partition exists.

        Raises: UsageError, in one line.
        """
        if find_spec("submitit") is None:
            raise UsageError(
                "the executor 'slurm' needs submitit, which is not installed.",
                hint="pip install 'idat-zoo[slurm]'",
            )
        check_cluster(self.options.partition)

    def train(
        self, turns: Sequence[Turn], setup: DeviceSetup, terms: Terms, progress: Progress
    ) -> Generator[tuple[int, Outcome], None, None]:
        """Train turns as jobs; yields each run's position and outcome, as the jobs end.

        Turns whose runs are all finished need no job. Unlike other engines' work, jobs go on when
        the generator is closed or fails, which a note says.

        Raises: UsageError for an error that concerns all runs, or a job that Slurm does not take;
        RunFolderError if the study's folder cannot be written.
        """
        waiting = yield from answer_finished(turns, setup, terms, progress)
        if not waiting:
            remove_finished(self.folder)
            return
        self.check()
        gpus = self._gpus(setup)
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
                    elements += self._submit(part, orders, gpus, progress)
                except _RefusedError as error:
                    if not elements:
                        raise UsageError(f"Slurm refused the job: {error}") from None
                    failure = TrainingError(f"Slurm refused the job: {error}")
                    yield from ((place, failure) for turn in part for place in turn.positions)
            yield from self._watch(elements, progress)
        except BaseException:
            _say_what_goes_on(elements, progress)
            raise
        finally:
            remove_finished(self.folder)

    def _gpus(self, setup: DeviceSetup) -> int:
        """The GPUs of a job. Raises: UsageError where the device does not fit them."""
        gpus = self.options.gpus
        if gpus is None:
            gpus = 1 if setup.device.type == "cuda" else 0
        if gpus and str(setup.device) != "cuda":
            raise UsageError(
                f"Slurm gives each pass its GPUs, and the device is '{setup.device}'.",
                hint="--device cuda, or --executor-option gpus=0",
            )
        return gpus

    def _taken_up(self, turns: Sequence[Turn], progress: Progress) -> Iterator[Element]:
        """The jobs of an earlier call that train the same turns, and have not ended.

        A job may also have runs that are finished by now.
        """
        left = {turn.number: turn for turn in turns}
        try:
            queued = queued_jobs(self.folder)
        except NoAnswerError as error:
            raise UsageError(f"Slurm does not list its jobs: {error}") from None
        for job, folder, runs in queued:
            turn = next((one for one in left.values() if set(runs_of(one)) <= set(runs)), None)
            if turn is not None:
                del left[turn.number]
                progress.note(f"Slurm job {job.id} of an earlier call goes on: {job.state.lower()}")
                yield Element(turn, job.id, folder)

    def _submit(
        self, turns: Sequence[Turn], orders: dict[int, Order], gpus: int, progress: Progress
    ) -> list[Element]:
        """Submit one array. Raises: _RefusedError if Slurm does not take it; RunFolderError."""
        import submitit

        folder = store_array(self.folder, [runs_of(turn) for turn in turns])
        said = io.StringIO()  # submitit prints what sbatch says, which the error has, too
        try:
            executor = submitit.SlurmExecutor(folder, max_num_timeout=MOST_TIMEOUTS)
            executor.update_parameters(**self._parameters(folder.name, gpus))
            with redirect_stderr(said), executor.batch():
                jobs = [executor.submit(TrainOrder(orders[turn.number])) for turn in turns]
        except submitit.core.utils.FailedJobError as error:
            shutil.rmtree(folder, ignore_errors=True)
            message = last_line(str(error)).removeprefix("sbatch: error: ")
            raise _RefusedError(message or "sbatch failed") from None
        except OSError as error:
            raise RunFolderError(
                f"cannot write '{folder}': {error.strerror or error}",
                hint=way_to_write(error, other="another --out"),
            ) from error
        array = jobs[0].job_id.partition("_")[0]
        progress.note(f"Slurm job {array}: {len(turns)} pass{'es' if len(turns) > 1 else ''}")
        return [Element(turn, job.job_id, folder) for turn, job in zip(turns, jobs, strict=True)]

    def _parameters(self, name: str, gpus: int) -> dict[str, Any]:
        """The parameters of submitit's submission."""
        own = self.options
        minutes = minutes_of(own.time)
        words = {key: getattr(own, key) for key in ("partition", "account", "qos", "constraint")}
        return {
            "job_name": name,
            "time": minutes,
            "signal_delay_s": min(WARNING, minutes * 60 // 4),
            "cpus_per_task": own.cpus,
            "array_parallelism": own.parallel,
            "setup": [f"export {variable}={own.cpus}" for variable in THREAD_VARIABLES],
            "srun_args": [f"--cpus-per-task={own.cpus}"],  # srun does not take it from sbatch
            "additional_parameters": {"requeue": True, "wckey": ""}
            | ({"mem": own.mem} if own.mem else {})
            | parameters_of(own.sbatch),
            **({"gpus_per_node": gpus} if gpus else {}),
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
            if any(element.ended for element in left):
                pause = SHORTEST_WAIT  # a job that is requeued seems to have ended for a moment
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


class _RefusedError(Exception):
    """Slurm did not take a job; what it said."""


def _say_what_goes_on(elements: Sequence[Element], progress: Progress) -> None:
    left = [one for one in elements if not (one.file("result.pkl").exists() or is_over(one))]
    if not left:
        return
    count = f"{len(left)} job{'s' if len(left) > 1 else ''}"
    arrays = dict.fromkeys(element.job_id.partition("_")[0] for element in left)
    progress.note(
        f"{count} of Slurm go on, and the same command takes them up again; "
        f"`scancel {' '.join(arrays)}` ends them."
    )
