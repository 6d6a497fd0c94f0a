"""The processes that torchrun starts for one `idat train`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from idat_zoo.cli import screen

if TYPE_CHECKING:
    from idat_zoo.data.reading import Reading
    from idat_zoo.engine.processes import Processes
    from idat_zoo.runs.device_setup import DeviceSetup
    from idat_zoo.runs.inputs import Inputs
    from idat_zoo.switches import Switches


def join(context: typer.Context) -> "Processes | None":
    """The processes that torchrun has started, connected until the command ends; None if it is one.

    Raises: TrainingError if they cannot connect.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        return None
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

    Raises: TrainingError if another process has ended.
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

    follow(processes, prepare)
