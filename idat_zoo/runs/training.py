"""One training of a pair of networks: its inputs and its outcome.

Shape letters: N images, C channels, H W image.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Int64, UInt8
from torch import Tensor

from idat_zoo.backbones.pair import NetworkPair, Role
from idat_zoo.checkpoint.opened import Opened
from idat_zoo.data.decode import Images
from idat_zoo.data.task_data import Split
from idat_zoo.engine.divergence import divergence
from idat_zoo.engine.learner import EpochLog
from idat_zoo.errors import DivergedError
from idat_zoo.file_names import ENSEMBLE_FOLDER
from idat_zoo.joined_images import JoinedImages
from idat_zoo.recipe import Recipe
from idat_zoo.runs.folder import SELECTION_FOLDER, run_label
from idat_zoo.runs.saved_state import Spent
from idat_zoo.switches import Switches

Taught = tuple[Opened, Images]
"""The checkpoint of an offline teacher, and the training images at its input size."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """The inputs of a training: a recipe, images, and the folder in which its state is saved.

    `images` are the same images at each network's input size, and `data` is their fingerprint.
    `val` and `test` are evaluated after every epoch where they are given: as the recipe's `watch`
    says, and `test` with `protocol = "paper"`. `split` is the name of the images' split. `teachers`
    are the checkpoints of offline teachers, each with the images at its input size. `still_ours`
    raises a RunFolderError if another process has taken over the folder.
    """

    recipe: Recipe
    seed: int
    folder: Path
    images: Mapping[Role, UInt8[Tensor, "N C H W"] | JoinedImages]
    targets: Int64[Tensor, "N"]
    data: str
    split: str = "trainval"
    val: Split | None = None
    teachers: tuple[Taught, ...] = ()
    test: Split | None = None
    still_ours: Callable[[], None] = lambda: None

    @property
    def label(self) -> str:
        """A readable id: the run's folder below `--out`."""
        return run_label(self.recipe, self.seed)

    @property
    def run_folder(self) -> Path:
        """The folder of the run that it belongs to: that of a candidate is two levels above."""
        above = self.folder.parent
        inside = above.name in (SELECTION_FOLDER, ENSEMBLE_FOLDER)
        return above.parent if inside else self.folder


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The outcome of a training: the trained pair, its log, and how it was computed.

    `spent` is what it has cost, in all processes that trained a part of it. `stack` names the runs
    that shared the pass, and is empty for a single run. `processes` is the number of those that
    trained it together.
    """

    recipe: Recipe
    pair: NetworkPair
    logs: list[EpochLog]
    spent: Spent
    switches: Switches
    stack: tuple[str, ...]
    processes: int = 1

    @property
    def divergence(self) -> DivergedError | None:
        """The error for a student that ended far worse than guessing, or None."""
        return divergence(self.logs[-1], self.recipe)
