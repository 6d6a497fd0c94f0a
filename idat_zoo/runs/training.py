"""One training of a pair: what goes into it and what comes out.

Shape letters: N images, C channels, H W image.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Int64, UInt8
from torch import Tensor

from idat_zoo.backbones.pair import NetworkPair, Role
from idat_zoo.data.task_data import Split
from idat_zoo.engine.learner import EpochLog, divergence
from idat_zoo.errors import DivergedError
from idat_zoo.recipe import Recipe
from idat_zoo.runs.folder import run_label
from idat_zoo.switches import Switches


@dataclass(frozen=True, kw_only=True)
class Training:
    """A recipe, the images it is trained on, and the folder that its state is saved in.

    `images` are the same images at each network's input size, and `data` their fingerprint. `test`
    is evaluated after every epoch, for `protocol = "paper"` alone. `still_ours` raises a
    RunFolderError where another process has taken the folder over.
    """

    recipe: Recipe
    seed: int
    folder: Path
    images: Mapping[Role, UInt8[Tensor, "N C H W"]]
    targets: Int64[Tensor, "N"]
    data: str
    test: Split | None = None
    still_ours: Callable[[], None] = lambda: None

    @property
    def label(self) -> str:
        """A readable id: the run's folder below `--out`."""
        return run_label(self.recipe, self.seed)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained pair, its log, and how it was computed.

    `seconds` are those of this process, a run's share of its passes; `images` were trained on in
    them. `stack` names the runs that shared the passes, where there were several.
    """

    recipe: Recipe
    pair: NetworkPair
    logs: list[EpochLog]
    seconds: float
    images: int
    switches: Switches
    stack: tuple[str, ...]

    @property
    def divergence(self) -> DivergedError | None:
        """The error that says so, where the student ended far worse than guessing."""
        return divergence(self.logs[-1], self.recipe)

    @property
    def images_per_second(self) -> float | None:
        """None where a resumed training had nothing left to do."""
        return self.images / self.seconds if self.images else None
