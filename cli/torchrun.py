"""The processes that torchrun starts for one `idat train`."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from idat_zoo.cli import screen
from idat_zoo.errors import TrainingError, UsageError

if TYPE_CHECKING:
    from idat_zoo.data.reading import Reading
    from idat_zoo.engine.processes import Processes
    from idat_zoo.runs.device_setup import DeviceSetup
    from idat_zoo.runs.inputs import Inputs
    from idat_zoo.switches import Switches

GRACE = 1.0
"""Seconds by which another process ends after an error, so that the first one can print it:
torchrun ends all processes at once with the first that fails."""


def count() -> int:
    """The number of processes that torchrun has started for this command; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


@contextmanager
def first_alone_prints() -> Iterator[None]:
    """A block in which the first process alone prints; the traceback of a bug is always printed."""
    if count() == 1 or os.environ["RANK"] == "0":
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        try:
            yield
        except SystemExit as end:
            if end.code:
                time.sleep(GRACE)
            raise


def check_command(name: str) -> None:
    """Refuse a command that several processes would each do by themselves. Raises: UsageError."""
    if count() > 1 and name != "train":
        raise UsageError(
            f"torchrun has started {count()} processes, and '{name}' is the work of one.",
            hint="Start it without torchrun; --jobs N trains a study on N processes."
            if name == "study"
            else "Start it without torchrun, which is for `idat train`.",
        )


def join(context: typer.Context) -> "Processes | None":
    """The processes that torchrun has started, connected until the command ends; None if it is one.

    When one is killed, torchrun ends the others by SIGTERM. The first process then ends as by
    Ctrl-C; the others ignore the signal, because they end with the first.

    Raises: TrainingError if they cannot connect.
    """
    if count() == 1:
        return None
    first = os.environ["RANK"] == "0"
    signal.signal(signal.SIGTERM, signal.default_int_handler if first else signal.SIG_IGN)
    with screen.waiting("loading torch"):
        from idat_zoo.engine.torchrun import connected
    return context.with_resource(connected())


def follow(
    processes: "Processes",
    device: str,
    switches: "Switches",
    *,
    data_dir: Path | None,
    reading: "Reading",
    teacher_from: Sequence[str],
) -> None:
    """Train what the first process orders, by the options of the command line.

    Raises: TrainingError if another process has ended; it is printed if the first one was killed.
    """
    from idat_zoo.engine.torchrun import own_device
    from idat_zoo.runs.device_setup import set_up
    from idat_zoo.runs.following import follow
    from idat_zoo.runs.inputs import Inputs
    from idat_zoo.runs.offline import open_teachers

    def prepare() -> "tuple[DeviceSetup, Inputs]":
        teachers = open_teachers(teacher_from) if teacher_from else ()
        setup = set_up(own_device(device), switches, processes=processes)
        return setup, Inputs(data_dir=data_dir, reading=reading, teachers=teachers)

    try:
        follow(processes, prepare)
    except TrainingError as error:
        if processes.reports():
            with redirect_stderr(sys.__stderr__):
                screen.print_error(error)
        raise
