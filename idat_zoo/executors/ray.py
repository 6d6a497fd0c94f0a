"""The executor for Ray: each turn is a task of Ray Core, retried when its process is killed.

Unless a cluster is named, Ray is started on this machine: with a temporary folder of its own, free
ports, no dashboard and no usage report. It ends with the call, also if that is killed: a guard ends
Ray's processes and removes the folder.
"""

import os
import pickle
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from idat_zoo import errors
from idat_zoo.data.reading import usable_cores
from idat_zoo.errors import TrainingError, UsageError, ZooError
from idat_zoo.executors import ray_guard
from idat_zoo.executors.executor import answer_finished
from idat_zoo.executors.order import make_order
from idat_zoo.executors.ray_options import RayOptions
from idat_zoo.executors.ray_task import Answer, train_pickled
from idat_zoo.results import Result
from idat_zoo.runs.device_setup import DeviceSetup
from idat_zoo.runs.folder import find_finished
from idat_zoo.runs.plan import Planned
from idat_zoo.runs.progress import Progress
from idat_zoo.runs.turn import Outcome, Terms, Turn
from idat_zoo.runs.workers import THREAD_VARIABLES

PREFIX = "idat-ray-"
LONGEST_FOLDER = 40
"""Characters of a folder for temporary files: paths of Ray's sockets are at most 107 long."""
STORE_BYTES = 100 * 2**20
"""The size of Ray's store of objects in /dev/shm, of which orders take little."""
PATIENCE = 10.0
"""Seconds for which a cluster may take to accept a connection."""
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # leave CUDA_VISIBLE_DEVICES to us
}


class RayExecutor:
    """Trains turns as tasks of Ray."""

    def __init__(self, options: RayOptions, *, folder: Path) -> None:
        self.options, self.folder = options, folder

    def check(self) -> None:
        """Raises: UsageError, in one line, if Ray is not installed, or its address is silent."""
        if find_spec("ray") is None:
            raise UsageError(
                "the executor 'ray' needs Ray, which is not installed.",
                hint="pip install 'idat-zoo[ray]'",
            )
        address = self.options.address
        if address is not None and address != "auto":
            _check_answers(address)

    def train(
        self, turns: Sequence[Turn], setup: DeviceSetup, terms: Terms, progress: Progress
    ) -> Generator[tuple[int, Outcome], None, None]:
        """Train turns as tasks; yields each run's position and outcome, as the tasks end.

        Turns whose runs are all finished need no task. When the generator is closed, Ray is ended.

        Raises: UsageError for an error that concerns all runs, or a cluster that is not there.
        """
        waiting = yield from answer_finished(turns, setup, terms, progress)
        if not waiting:
            return
        gpus = self.options.gpus
        if gpus is None:
            gpus = 1.0 if setup.device.type == "cuda" else 0.0
        if gpus and str(setup.device) != "cuda":
            raise UsageError(
                f"Ray gives each pass its GPUs, and the device is '{setup.device}'.",
                hint="--device cuda, or --executor-option gpus=0",
            )
        orders = [
            pickle.dumps(make_order(turn, setup, terms, threads=self.options.cpus))
            for turn in waiting
        ]
        with self._cluster(len(waiting), gpus, progress) as ray:
            yield from self._train(ray, waiting, orders, gpus)

    def _train(
        self, ray: Any, turns: Sequence[Turn], orders: Sequence[bytes], gpus: float
    ) -> Iterator[tuple[int, Outcome]]:
        """Submit all turns, and yield the outcomes of each whose task has ended."""
        task = ray.remote(_task).options(
            num_cpus=self.options.cpus,
            num_gpus=gpus,
            max_retries=self.options.retries,
            runtime_env={"env_vars": self._environment()},
        )
        left = {
            task.remote(order, str(Path.cwd()), bool(gpus)): turn
            for turn, order in zip(turns, orders, strict=True)
        }
        while left:
            (ended, *_), _ = ray.wait(list(left), num_returns=1)
            turn = left.pop(ended)
            try:
                answer: Answer = ray.get(ended)
            except ray.exceptions.RayError as error:
                kind = "EngineError" if isinstance(error, _of_nodes(ray)) else "TrainingError"
                answer = [("", kind, f"its Ray task ended: {_first_line(error)}")]
            yield from _outcomes(turn, answer)

    def _environment(self) -> dict[str, str]:
        return dict.fromkeys(THREAD_VARIABLES, str(self.options.cpus)) | SETTINGS

    @contextmanager
    def _cluster(self, passes: int, gpus: float, progress: Progress) -> Iterator[Any]:
        """Ray, connected to a cluster, or started here. Raises: UsageError."""
        with _variables(SETTINGS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Ray itself
            import ray

            with ExitStack() as stack:
                place = None if self.options.address else stack.enter_context(_own_folder())
                stack.callback(ray.shutdown)
                self._start(ray, place, gpus)
                self._check_resources(ray.cluster_resources(), gpus)
                count = f"{passes} pass{'es' if passes > 1 else ''}"
                each = f"{self.options.cpus} thread{'s' if self.options.cpus > 1 else ''} each"
                progress.note(f"Ray {ray.__version__}: {count}, {each}")
                unread = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
                stack.enter_context(redirect_stdout(unread))  # pages when a node has ended
                yield ray

    def _start(self, ray: Any, place: Path | None, gpus: float) -> None:
        words: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if place is None:
            words["address"] = self.options.address
        else:
            workers = self.options.workers or max(1, usable_cores() // self.options.cpus)
            words |= {
                "address": "local",  # never a stranger's cluster on the same machine
                "num_cpus": workers * self.options.cpus,
                "num_gpus": torch.cuda.device_count() if gpus else 0,
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES,
                "_temp_dir": str(place),
            }
        try:
            ray.init(**words)
        except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
            where = f"at '{self.options.address}'" if place is None else "on this machine"
            raise UsageError(f"no Ray {where}: {_first_line(error)}") from None

    def _check_resources(self, found: Mapping[str, float], gpus: float) -> None:
        """Raises: UsageError for resources that no node has: Ray would wait for ever."""
        for name, asked in (("CPU", self.options.cpus), ("GPU", gpus)):
            if asked > found.get(name, 0):
                raise UsageError(
                    f"a pass asks Ray for {asked:g} {name}, and the cluster has "
                    f"{found.get(name, 0):g}."
                )


def _task(content: bytes, where: str, has_gpus: bool) -> Answer:
    """Train a pickled order in the folder `where`, on the devices that Ray has given."""
    devices = ""
    if has_gpus:
        import ray

        devices = ",".join(str(number) for number in ray.get_gpu_ids())
    return train_pickled(content, where=where, devices=devices)


def _outcomes(turn: Turn, answer: Answer) -> Iterator[tuple[int, Outcome]]:
    """The outcomes of a turn's runs: an error as it was answered, a result from its folder.

    Raises: UsageError that concerns all runs.
    """
    told = {folder: (kind, message) for folder, kind, message in answer}
    for_all = told.get("")
    if for_all is not None and for_all[0] == "UsageError":
        raise UsageError(for_all[1])
    for position, one in zip(turn.positions, turn.runs, strict=True):
        kind, message = told.get(str(one.folder), for_all or ("", ""))
        yield position, _result(one) or _error(kind, message)


def _result(one: Planned) -> Result | ZooError | None:
    try:
        return find_finished(one.folder, one.recipe, out=one.out)
    except ZooError as error:
        return error


def _error(kind: str, message: str) -> ZooError:
    first, _, hint = (message or "its Ray task ended without a result.").partition("\n")
    found = getattr(errors, kind, TrainingError)
    made: ZooError = found.__new__(found, first)  # constructors differ
    ZooError.__init__(made, first, hint=hint)
    return made


def _check_answers(address: str) -> None:
    """Check that something listens at an address: Ray itself would try for minutes.

    Raises: UsageError.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"no Ray at '{address}': {_first_line(error)}",
            hint="`ray start --head` prints the address of a cluster.",
        ) from None


def _of_nodes(ray: Any) -> tuple[type[Exception], ...]:
    """Ray's errors that a node has ended, with its object store and its raylet."""
    found = ray.exceptions
    return (
        *(found.LocalRayletDiedError, found.NodeDiedError, found.RaySystemError),
        *(found.ObjectLostError, found.OwnerDiedError),
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, which Ray's processes inherit, and restore them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A new folder for Ray's files, which a guard removes at the end, with Ray's processes."""
    top = Path(tempfile.gettempdir())
    if len(str(top)) > LONGEST_FOLDER:
        top = Path("/tmp")
    place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=top)).resolve()
    guard = subprocess.Popen(
        [sys.executable, "-I", ray_guard.__file__, str(place)],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is the call's
    )
    with guard:  # closes its input, and waits for its end
        yield place
