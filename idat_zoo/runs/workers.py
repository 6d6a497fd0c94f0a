"""The worker processes of one call: their start, the turns they are given, and their end.

A worker is a new interpreter that imports nothing but idat-zoo, so a script that calls `run_many`
needs no guard, and no lock or thread of this process is copied. `worker.py` is the other side.
"""

import os
import pickle
import signal
import subprocess
import sys
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from time import monotonic
from typing import Any

import torch

from idat_zoo.data.reading import Listener, usable_cores
from idat_zoo.errors import DataError, PluginWarning, TrainingError
from idat_zoo.outside import loaded_files
from idat_zoo.runs.assignment import Assignment
from idat_zoo.runs.device_setup import DeviceSetup
from idat_zoo.runs.progress import Progress
from idat_zoo.runs.shared_arrays import share_arrays
from idat_zoo.runs.turn import Outcome, Terms, Turn

GRACE = 15.0
"""Seconds that workers have to unlock their folders before they are killed."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
START = "import sys; sys.path[:] = {path!r}; from idat_zoo.runs import worker; worker.main({fd})"


def train_in_workers(
    turns: Sequence[Turn], setup: DeviceSetup, terms: Terms, progress: Progress
) -> Generator[tuple[int, Outcome], None, None]:
    """Train turns in `setup.jobs` processes; yields each run's position and outcome, as they end.

    The threads of this process are shared out. Turns whose runs are all finished need no worker. A
    worker that dies ends the runs of its turn, and another one is started. When the generator is
    closed, all workers are ended.

    Raises: UsageError for an error that concerns all runs.
    """
    open_turns = deque[Turn]()
    for turn in turns:
        if all(one.finished for one in turn.runs):
            yield from turn.train(setup, terms, progress)
        else:
            open_turns.append(turn)
    threads, count = torch.get_num_threads(), min(setup.jobs, len(open_turns))
    cores = usable_cores()
    if setup.device.type == "cpu" and count > cores:
        shared_out = f"{cores} core{'s' if cores > 1 else ''}"
        progress.note(f"{count} processes share {shared_out}: fewer may be faster")
    with ExitStack() as stack:
        try:
            recipes = [one.recipe for turn in open_turns for one in turn.runs]
            shared = stack.enter_context(share_arrays(terms, recipes))
        except DataError as error:
            yield from ((position, error) for turn in open_turns for position in turn.positions)
            return
        assignment = Assignment(
            device=str(setup.device),
            switches=setup.switches,
            stack=setup.stack,
            jobs=setup.jobs,
            threads=max(1, threads // setup.jobs),
            plugins=loaded_files(),
            terms=shared.terms.heard_by(Listener()),
        )
        workers = _Workers(assignment, progress, files=shared.files)
        stack.callback(workers.end)
        for number in range(count):
            workers.start(number)
        yield from workers.train(open_turns)


@dataclass
class _Worker:
    """A process, the socket to it, and the turn that it is training.

    `output` is the pipe of what it writes to stdout and stderr, or None once that is closed. `left`
    are the positions of runs whose outcome is not known yet. `crash` is the exception that ends it.
    """

    number: int
    process: "subprocess.Popen[bytes]"
    connection: Connection
    output: int | None
    listener: Progress
    begun: bool = False
    turn: Turn | None = None
    left: list[int] = field(default_factory=list)
    line: bytes = b""
    crash: str = ""


class _Workers:
    """All worker processes of a call."""

    def __init__(self, assignment: Assignment, progress: Progress, *, files: Sequence[int]) -> None:
        self._assignment, self._progress, self._files = assignment, progress, files
        self._all: list[_Worker] = []
        self._listeners: dict[int, Progress] = {}
        self._shown: set[str] = set()

    def start(self, number: int) -> None:
        """Start a process; it loads torch while this one goes on.

        SIGINT is blocked meanwhile, and so for good in the child: Ctrl-C reaches this process
        alone, also while the child is not yet ready for signals.
        """
        ours, theirs = Pipe()
        output, written = os.pipe()
        os.set_blocking(output, False)
        start = START.format(path=sys.path, fd=theirs.fileno())
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", start],
                env=os.environ | self._environment(number),
                pass_fds=[theirs.fileno(), *self._files],
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
            )
            if number not in self._listeners:
                self._listeners[number] = self._progress.worker(number)
            listener = self._listeners[number]
            self._all.append(_Worker(number, process, ours, output, listener))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
            os.close(written)

    def _environment(self, number: int) -> dict[str, str]:
        """The threads of a worker, and on CUDA its device."""
        own = dict.fromkeys(THREAD_VARIABLES, str(self._assignment.threads))
        if self._assignment.device == "cuda":
            names = os.environ.get(DEVICES_VARIABLE, "").split(",")
            own[DEVICES_VARIABLE] = names[number] if names != [""] else str(number)
        return own

    def train(self, turns: "deque[Turn]") -> Iterator[tuple[int, Outcome]]:
        """Hand out turns until all are over; yields outcomes. Raises: UsageError of a turn."""
        for worker in list(self._all):
            self._give(worker, turns)
        while busy := [worker for worker in self._all if worker.turn is not None]:
            outputs = {worker.output: worker for worker in busy if worker.output is not None}
            ready = wait([*(worker.connection for worker in busy), *outputs])
            for worker in (worker for output, worker in outputs.items() if output in ready):
                self._show(worker)
            for worker in (worker for worker in busy if worker.connection in ready):
                try:
                    message = pickle.loads(worker.connection.recv_bytes())
                except (EOFError, OSError):
                    yield from self._bury(worker, turns)
                    continue
                yield from self._hear(worker, *message)
                if worker.turn is None:
                    self._give(worker, turns)

    def _give(self, worker: _Worker, turns: "deque[Turn]") -> None:
        """Give a worker its next turn, or end it if none is left."""
        if not turns:
            worker.listener.ended()
            worker.connection.close()
            worker.process.terminate()
            return
        worker.turn = turns.popleft()
        worker.left = list(worker.turn.positions)
        worker.turn.announce(worker.listener)
        if not worker.begun:
            worker.listener.doing(worker.turn.runs[0].recipe.task.id, "starting a process")
        with suppress(OSError):  # it has died, as reading from it will tell
            if not worker.begun:
                worker.connection.send_bytes(pickle.dumps(self._assignment))
                worker.begun = True
            worker.connection.send_bytes(pickle.dumps(worker.turn))

    def _hear(self, worker: _Worker, kind: str, *content: Any) -> Iterator[tuple[int, Outcome]]:
        """Act on a message; yields the outcome that it holds. Raises: UsageError of a turn."""
        match kind, content:
            case "progress", (method, arguments, keywords):
                getattr(worker.listener, method)(*arguments, **keywords)
            case "steps", (count,):
                for _ in range(count):
                    worker.listener.step()
            case "outcome", (position, outcome):
                worker.left.remove(position)
                yield position, outcome
            case "warning", (text,):
                warnings.warn(text, PluginWarning, stacklevel=2)
            case "crashed", (trace,):
                self._progress.note(trace.rstrip())
                worker.crash = trace.rstrip().rpartition("\n")[2]
            case "over", (error,):
                if error is not None:
                    raise error
                worker.turn = None
            case _:
                raise AssertionError(f"a worker sent {kind!r}")

    def _bury(self, worker: _Worker, turns: "deque[Turn]") -> Iterator[tuple[int, Outcome]]:
        """End the runs of a worker that has died, and start another one if turns are left."""
        self._all.remove(worker)
        code = _end(worker.process, monotonic() + GRACE)
        if worker.output is not None:
            self._show(worker)
        self._close(worker)
        yield from ((position, _death(code, worker.crash)) for position in worker.left)
        if turns:
            self.start(worker.number)
            self._give(self._all[-1], turns)
        else:
            worker.listener.ended()

    def _show(self, worker: _Worker) -> None:
        """Pass on whole lines that a worker has written, each text once for all workers."""
        assert worker.output is not None
        try:
            read = os.read(worker.output, 65536)
        except BlockingIOError:
            return
        *lines, worker.line = (worker.line + read).split(b"\n")
        if not read:
            os.close(worker.output)
            worker.output = None
        for line in lines:
            text = line.decode(errors="replace").rpartition("\r")[2].rstrip()
            if text and text not in self._shown:
                self._shown.add(text)
                self._progress.note(text)

    def _close(self, worker: _Worker) -> None:
        worker.connection.close()
        if worker.output is not None:
            os.close(worker.output)
            worker.output = None

    def end(self) -> None:
        """End all processes; those that do not unlock their folders in time are killed."""
        for worker in self._all:
            worker.connection.close()
            worker.process.terminate()
        deadline = monotonic() + GRACE
        for worker in self._all:
            _end(worker.process, deadline)
            self._close(worker)


def _end(process: "subprocess.Popen[bytes]", deadline: float) -> int:
    """The exit code of a process that is ending, and is killed if it takes too long."""
    try:
        return process.wait(max(0.0, deadline - monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _death(code: int, crash: str) -> TrainingError:
    """The error of a run whose worker has ended with an exit code, negative for a signal."""
    if crash:
        return TrainingError(
            f"its worker process failed: {crash}", hint="The traceback was shown when it happened."
        )
    hint = "What was saved is kept: --resume goes on with it."
    if code >= 0:
        return TrainingError(f"its worker process ended with exit code {code}.", hint=hint)
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        hint += " Where the memory was full, fewer --jobs take less."
    return TrainingError(f"its worker process was ended by {name}.", hint=hint)
