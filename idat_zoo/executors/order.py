"""The order: one turn with all that a process on another machine needs to train it.

An order is pickled. It names no checkpoint: a run goes on from what its folder holds, so the same
order starts, resumes and repeats a turn.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from idat_zoo.data.reading import Listener
from idat_zoo.engine.precision import computing
from idat_zoo.errors import UsageError
from idat_zoo.outside import loaded_files
from idat_zoo.runs.assignment import Assignment
from idat_zoo.runs.device_setup import DeviceSetup, set_up
from idat_zoo.runs.progress import Progress
from idat_zoo.runs.turn import Outcome, Terms, Turn
from idat_zoo.runs.worker import load_plugins


@dataclass(frozen=True, kw_only=True)
class Order:
    """A turn, and what a process must know to train it."""

    assignment: Assignment
    turn: Turn


def make_order(turn: Turn, setup: DeviceSetup, terms: Terms, *, threads: int) -> Order:
    """The order to train a turn with a number of threads; interrupted runs go on.

    The folder of a run may be locked by a process that has died on another machine, or that is
    alive: its end is awaited, so no run is trained twice.

    Raises: UsageError for images in the memory of this process.
    """
    if terms.inputs.arrays is not None:
        raise UsageError("images in the memory of this process cannot be sent to another machine.")
    assignment = Assignment(
        device=str(setup.device),
        switches=setup.switches,
        stack=setup.stack,
        jobs=1,
        threads=threads,
        plugins=loaded_files(),
        terms=replace(terms, resume=True, wait=True).heard_by(Listener()),
    )
    return Order(assignment=assignment, turn=turn)


def train_order(order: Order) -> dict[Path, Outcome]:
    """Train the turn of an order in this process; the outcome of each run by its folder.

    Raises: UsageError for an error that concerns all runs of the call.
    """
    assignment, turn = order.assignment, order.turn
    torch.set_num_threads(assignment.threads)
    load_plugins(assignment.plugins)
    setup = set_up(torch.device(assignment.device), assignment.switches, stack=assignment.stack)
    folders = dict(zip(turn.positions, (one.folder for one in turn.runs), strict=True))
    with computing(setup.switches, setup.device):
        outcomes = turn.train(setup, assignment.terms, Progress())
        return {folders[position]: outcome for position, outcome in outcomes}
