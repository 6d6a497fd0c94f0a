"""The order to train a run together, which the first of several processes gives to the others."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from idat_zoo import files
from idat_zoo.engine.learner import Learner
from idat_zoo.engine.processes import Processes
from idat_zoo.engine.state import load_state, state_of
from idat_zoo.engine.train import Trainer
from idat_zoo.errors import TrainingError, ZooError
from idat_zoo.recipe import Recipe
from idat_zoo.runs.training import Training
from idat_zoo.switches import Switches


@dataclass(frozen=True, kw_only=True)
class JointTraining:
    """A training and its state, from which every process goes on.

    `split` names its images, and `origin` says which images and weights the first process has.
    `state` is the serialised state of its learner after `done` epochs, with its `surpassed`.
    """

    recipe: Recipe
    seed: int
    folder: Path
    split: str
    origin: Mapping[str, object]
    switches: Switches
    state: bytes
    done: int
    surpassed: bool

    def restore(self, trainer: Trainer, learner: Learner) -> None:
        """Load the state into the learner of another process."""
        load_state(trainer, learner, files.parse_tensors(self.state))
        learner.done, learner.surpassed = self.done, self.surpassed


@contextmanager
def led(
    training: Training,
    trainer: Trainer,
    learner: Learner,
    *,
    origin: Mapping[str, object],
    switches: Switches,
    processes: Processes,
) -> Iterator[None]:
    """A block in which the other processes, if any, train what this one trains.

    In the block, this process tells them each epoch (`Processes.tell`) before it trains it.

    Raises: the error of a process that cannot follow; TrainingError if one has ended.
    """
    if processes.count == 1 or learner.fault is not None or learner.done == learner.epochs:
        yield
        return
    order = JointTraining(
        recipe=training.recipe,
        seed=training.seed,
        folder=training.folder,
        split=training.split,
        origin=origin,
        switches=switches,
        state=files.dump_tensors(state_of(trainer, learner)),
        done=learner.done,
        surpassed=learner.surpassed,
    )
    processes.tell(order)
    for rank, fault in enumerate(processes.answers(None)):
        if isinstance(fault, ZooError):
            fault.message = f"process {rank} of {processes.count}: {fault.message}"
            raise fault
    processes.open(learner.device)
    try:
        yield
    finally:
        if not processes.lost:
            with suppress(TrainingError):
                processes.tell(None)
