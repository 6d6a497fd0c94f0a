"""Result: one run's numbers with the recipe that made them. JSON in, JSON out."""

import json
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, Strict, ValidationError

from idat_zoo.errors import ZooError
from idat_zoo.metrics import Metrics, interval, percent
from idat_zoo.recipe import Frozen, Recipe, Scalar, describe_faults
from idat_zoo.runs.file_names import RESULT_FILE as RESULT_FILE
from idat_zoo.standing import Standing, are_too_few, compare, in_words, too_few_in_words
from idat_zoo.switches import Switches

if TYPE_CHECKING:
    from rich.text import Text

SCHEMA_VERSION = 1
PREDICTIONS_FILE = "predictions.safetensors"
DIVERGED = "the training diverged, and its result was kept by --keep-diverged"


class Candidate(Frozen):
    """One setting that `selection = "val"` tried, and its last-epoch top-1 on val200.

    One that diverged loses to all that did not; its top-1 is 0 where its loss was not finite.
    """

    values: dict[str, Scalar]
    val_top1: float
    diverged: bool = False


class Selection(Frozen):
    """All settings that were tried; the chosen one was refitted on all 1,000 images."""

    tried: Annotated[tuple[Candidate, ...], Strict(False)]
    chosen: int


class Parameters(Frozen):
    """Counts of numbers: what is trained for each network, and the frozen backbones."""

    adapter: int
    head: int
    backbone: int
    teacher_adapter: int | None = None
    teacher_head: int | None = None
    teacher_backbone: int | None = None


class ImageCounts(Frozen):
    """How many images a number rests on.

    `unreadable` ones were left out; `test_in_training` test images have the bytes of an image that
    was learnt from.
    """

    train: int
    val: int
    test: int
    unreadable: int = 0
    test_in_training: int = 0


class RawPixels(Frozen):
    """What raw-pixel baselines saw: at most 32 x 32 pixels, and how many of the images."""

    size: int
    train: int
    test: int


class Source(Frozen):
    """Where on the Hub a checkpoint was, at which commit, and which revision was asked for."""

    repo: str
    commit: str
    subfolder: str = ""
    asked: str


class Result(Frozen):
    """One recipe with one seed, and what came of it.

    `top1` is the student's on test after the last epoch, a fraction; `student` and `teacher` hold
    all metrics. `top1_best_on_test` exists under `protocol = "paper"` alone and is optimistic.
    `kind` is `run` for training, `eval` for a checkpoint evaluated later. `switches` and `stack`
    (the runs that went through one pass with it, and it among them) can change the last bits;
    `seconds` is then its share of the pass. `data_copy` names where the images were pulled from.
    `raw_pixels` is there where the raw-pixel baselines did not see all pixels of all images.
    `diverged` marks a training that diverged and was kept on purpose.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Literal["run", "eval"]
    top1: float
    top1_interval: Annotated[tuple[float, float], Strict(False)]
    top1_best_on_test: float | None = None
    student: Metrics
    teacher: Metrics | None = None
    selection: Selection | None = None
    images: ImageCounts | None = None
    baselines: dict[str, float] = Field(default_factory=dict)
    raw_pixels: RawPixels | None = None
    diverged: bool = False
    parameters: Parameters
    recipe: Recipe
    recipe_hash: str
    seed: int
    checkpoint: Source | None = None
    data_fingerprint: str
    data_copy: str | None = None
    backbone_sha256: dict[str, str]
    device: str
    versions: dict[str, str]
    switches: Switches | None = None
    stack: Annotated[tuple[str, ...], Strict(False)] = ()
    seconds: float
    images_per_second: float | None = None
    finished: str
    files: dict[str, str] = Field(default_factory=dict)

    @property
    def label(self) -> str:
        """pair/adapter/task, as the run's folder begins."""
        return f"{self.recipe.pair.name}/{self.recipe.adapter.label}/{self.recipe.task.id}"

    @property
    def reached(self) -> dict[str, float]:
        """The baselines' top-1 by name; chance also of results that were made without it."""
        return {"chance": 1 / self.recipe.task.num_classes} | self.baselines

    @property
    def standing(self) -> Standing:
        """How its top-1 stands against the baselines, and whether it rests on too few images."""
        return Standing(
            baselines=compare(self.top1, self.top1_interval, self.reached),
            too_few_images=are_too_few(self.student.count, self.top1_interval),
        )

    def as_document(self) -> dict[str, Any]:
        """As commands print it: `as_json`, and how it stands."""
        return {**self.as_json(), "standing": self.standing.model_dump(mode="json")}

    def as_json(self) -> dict[str, Any]:
        """Plain values, without the fields that do not apply."""
        return self.model_dump(mode="json", exclude_none=True)

    def __str__(self) -> str:
        """How it went, in a few lines for people."""
        return "\n".join(_summary(self))

    def __rich__(self) -> "Text":
        """The same for rich, which would take brackets in names for its own."""
        from rich.text import Text

        return Text(str(self))

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """What tells it from others: all of it is pages."""
        yield "label", self.label
        yield from ((name, getattr(self, name)) for name in ("kind", "seed", "top1"))


def _summary(result: Result) -> Iterator[str]:
    teacher = result.recipe.pair.teacher
    trained_with = "alone" if teacher is None else f"with {teacher.name}"
    if result.recipe.protocol == "imported":
        trained_with = "trained elsewhere (protocol = imported)"
    yield (
        f"{result.label} {trained_with}, seed {result.seed}: top-1 {percent(result.top1)} "
        f"{interval(result.top1_interval)} on {result.student.count} test images"
    )
    standing = result.standing
    yield f"  {in_words(result.top1, standing.baselines, percent)}"
    if result.raw_pixels is not None:
        yield f"  {raw_pixels_in_words(result.raw_pixels)}"
    if standing.too_few_images:
        yield f"  it {too_few_in_words(result.student.count)}"
    if result.diverged:
        yield f"  {DIVERGED}"
    if result.teacher is not None:
        yield f"  teacher {percent(result.teacher.top1)} {interval(result.teacher.top1_interval)}"
    if result.top1_best_on_test is not None:
        best = percent(result.top1_best_on_test)
        yield f"  best epoch on test {best} (protocol = paper: chosen on test, optimistic)"
    if result.selection is not None:
        chosen = result.selection.tried[result.selection.chosen]
        values = ", ".join(f"{name} = {value}" for name, value in chosen.values.items())
        count = len(result.selection.tried)
        yield f"  chosen on val200 from {count}: {values} ({percent(chosen.val_top1)})"
    trained = result.parameters.adapter + result.parameters.head
    yield (
        f"  {trained:,} trained numbers (adapter {result.parameters.adapter:,}), "
        f"{result.seconds:.0f} s on {result.device}"
    )


def raw_pixels_in_words(pixels: RawPixels) -> str:
    """`raw pixels: 32 x 32, 1,000 images for training, 5,000 for test`."""
    return (
        f"raw pixels: {pixels.size} x {pixels.size}, {pixels.train:,} images for training, "
        f"{pixels.test:,} for test"
    )


def load_result(path: Path) -> Result:
    """Read a result.json of this or an older schema.

    Raises: ZooError where it is no result, damaged, or of a newer schema.
    """
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ZooError(f"cannot read result '{path}': {error}") from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise ZooError(f"'{path}' is not a result of idat-zoo: it has no schema_version.")
    if version > SCHEMA_VERSION:
        raise ZooError(
            f"'{path}' has schema {version}; this idat-zoo reads up to {SCHEMA_VERSION}.",
            hint="Upgrade idat-zoo.",
        )
    try:
        return Result.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise ZooError("\n  ".join(describe_faults(error, where=str(path)))) from None


def find_results(folders: list[Path]) -> list[tuple[Path, Result]]:
    """Every result.json at or below the folders, in order of path.

    Raises: ZooError where there is none, or one cannot be read.
    """
    paths = sorted({path for folder in folders for path in _result_files(folder)})
    if not paths:
        raise ZooError(f"no {RESULT_FILE} in {', '.join(map(str, folders))}.")
    return [(path, load_result(path)) for path in paths]


def _result_files(place: Path) -> list[Path]:
    return [place] if place.is_file() else list(place.rglob(RESULT_FILE))


def versions() -> dict[str, str]:
    """What computed a number, as far as versions say."""
    packages = ("idat-zoo", "torch", "timm", "numpy", "pillow", "scikit-learn", "safetensors")
    known = {package: _version(package) for package in packages}
    return known | {"python": platform.python_version()}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def now() -> str:
    """The time, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
