"""The saved state of a training: its log and its tensors after the last complete epoch."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from idat_zoo import files
from idat_zoo.engine.divergence import divergence
from idat_zoo.engine.learner import EpochLog, Learner
from idat_zoo.engine.schedule import total_epochs
from idat_zoo.engine.state import load_state, state_of
from idat_zoo.engine.train import Trainer
from idat_zoo.errors import DivergedError, RunFolderError
from idat_zoo.file_names import LOG_FILE
from idat_zoo.recipe import Recipe
from idat_zoo.runs.folder import STATE_FILE

SHARED = "runs in one pass"
DEVICE = "device"
SPENT = "spent"


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a training has cost.

    `seconds` is its share of the time of its passes, `images` the number of images that it was
    trained on in that time, counted in every epoch, and `peak_memory` the largest peak of a whole
    pass in bytes, in this process; None where it is unknown.
    """

    seconds: float = 0.0
    images: int = 0
    peak_memory: int | None = None

    def __add__(self, other: "Spent") -> "Spent":
        peaks = [peak for peak in (self.peak_memory, other.peak_memory) if peak is not None]
        return Spent(
            seconds=self.seconds + other.seconds,
            images=self.images + other.images,
            peak_memory=max(peaks, default=None),
        )


@dataclass
class SavedState:
    """The log and state of a training in a folder, from which a later process can resume it.

    `origin` holds facts that must not change between the start and the end of a training, by names
    used in messages. A saved state with another origin is refused. `device` describes where the
    epochs are computed; one that changed may change the last bits, which `note` is told. `before`
    is what earlier processes have spent on the training.
    """

    folder: Path
    origin: Mapping[str, object]
    device: str
    note: Callable[[str], None]
    logs: list[EpochLog] = field(default_factory=list)
    before: Spent = Spent()

    @property
    def shared_with(self) -> tuple[str, ...]:
        """The labels of the runs in its pass; of a training already complete, those of its last."""
        labels = self.origin[SHARED]
        assert isinstance(labels, list | tuple)
        return tuple(labels)

    def add(
        self,
        log: EpochLog,
        trainer: Trainer,
        learner: Learner,
        spent: Spent,
        still_ours: Callable[[], None],
    ) -> None:
        """Save one more epoch: first its log, then the state. `spent` is that of this process.

        Raises: RunFolderError if `still_ours` does, or the folder cannot be written.
        """
        still_ours()
        self.logs.append(log)
        lines = "".join(json.dumps(log.as_json()) + "\n" for log in self.logs)
        files.write_whole(self.folder / LOG_FILE, lines.encode())
        facts = json.dumps({**self.origin, DEVICE: self.device, SPENT: asdict(self.before + spent)})
        origin = torch.tensor(list(facts.encode()), dtype=torch.uint8)
        state = {"epochs": torch.tensor(len(self.logs)), "begun_with": origin}
        state |= state_of(trainer, learner)
        files.write_whole(self.folder / STATE_FILE, files.dump_tensors(state))

    def restore(self, trainer: Trainer, learner: Learner) -> None:
        """Load the state after the last saved epoch into a learner; do nothing if none is saved.

        Raises: RunFolderError if the state's file is damaged, or has another origin.
        """
        path = self.folder / STATE_FILE
        if not path.exists():
            return
        try:
            state = files.parse_tensors(path.read_bytes())
            begun = json.loads(bytes(state["begun_with"].tolist()))
            learner.done = int(state["epochs"])
            self.before = Spent(**begun.get(SPENT, {}))
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(path, error) from None
        if learner.done == learner.epochs:  # nothing is left to train, so no pass to share
            self.origin = {**self.origin, SHARED: begun.get(SHARED, [])}
        other = [name for name, value in self.origin.items() if begun.get(name) != value]
        if other:
            raise RunFolderError(
                f"'{self.folder}' was begun with other {' and '.join(other)}.",
                hint="Repeat the command it was begun with, choose another --out, or remove the "
                "folder to begin anew.",
            )
        before = begun.get(DEVICE, self.device)
        if before != self.device and learner.done < learner.epochs:
            self.note(
                f"trained so far on {before}, and now on {self.device}: the last bits may differ "
                "from those of a training in one go"
            )
        load_state(trainer, learner, state)
        self.logs = self._read_logs(learner.done)
        for log in self.logs:
            learner.watch(log)

    def _read_logs(self, epochs: int) -> list[EpochLog]:
        """The logs of the first epochs. Raises: RunFolderError if one of them cannot be read."""
        path = self.folder / LOG_FILE
        try:
            lines = path.read_text().splitlines()[:epochs]
            logs = [EpochLog(**json.loads(line)) for line in lines]
        except (OSError, ValueError, TypeError) as error:
            raise _damaged(path, error) from None
        if len(logs) < epochs:
            raise _damaged(path, f"it has {len(logs)} of {epochs} epochs")
        return logs


def _damaged(path: Path, why: object) -> RunFolderError:
    return RunFolderError(f"'{path}' is damaged: {why}", hint="Remove the folder.")


def diverged_before(folder: Path, recipe: Recipe) -> DivergedError | None:
    """The error of a training that is complete and diverged, so that it has no result, or None."""
    try:
        lines = (folder / LOG_FILE).read_text().splitlines()
        last = EpochLog(**json.loads(lines[-1]))
    except (OSError, ValueError, TypeError, IndexError):
        return None
    whole = last.epoch == total_epochs(recipe) and (folder / STATE_FILE).is_file()
    return divergence(last, recipe) if whole else None
