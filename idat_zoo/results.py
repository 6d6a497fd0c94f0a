"""Results: the numbers of one run with its recipe, stored as JSON."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, Strict, ValidationError, model_validator

from idat_zoo.candidates import values_in_words
from idat_zoo.contradictions import find_contradiction
from idat_zoo.digest import digest_fits, edited_in_words, with_digest, without_digest
from idat_zoo.errors import ZooError
from idat_zoo.file_names import RESULT_FILE as RESULT_FILE
from idat_zoo.metrics import Metrics, interval, percent
from idat_zoo.recipe import Recipe, describe_faults
from idat_zoo.result_files import EDITED as EDITED
from idat_zoo.result_files import SCHEMA_VERSION as SCHEMA_VERSION
from idat_zoo.result_files import check_schema, result_paths, uncollected, without_confusions
from idat_zoo.standing import Standing, are_too_few, compare, in_words, too_few_in_words
from idat_zoo.switches import Switches
from idat_zoo.values import Frozen, Scalar

if TYPE_CHECKING:
    from rich.text import Text

PREDICTIONS_FILE = "predictions.safetensors"
JOINT = "task_loss = joint: the two were trained to answer together; top-1 is the student's alone"
WATCHED = {
    "val": "watched on val after every epoch (log.jsonl), and not trained on these images",
    "test": "watched on test after every epoch (log.jsonl); nothing was chosen by it",
}
"""The sentences on a run that was watched, by its recipe's `watch`."""
ENSEMBLE = "the mean of the softmaxes of all candidates, each trained on all training images"
DIVERGED = "the training diverged, and its result was kept by --keep-diverged"


class Candidate(Frozen):
    """A setting that `selection = "val"` tried, or a member of an ensemble.

    `val_top1` is its last-epoch top-1 on val200; None for a member, which is trained on all images.
    A candidate that diverged ranks below all that did not; its top-1 is 0 if its loss was not
    finite.
    """

    values: dict[str, Scalar]
    val_top1: float | None = None
    diverged: bool = False


class Selection(Frozen):
    """All candidates of a run, by its recipe's `selection`.

    With `mode = "val"`, `chosen` is the index of the one that was refitted on 1,000 images. With
    `"ensemble"` none was chosen: all of them were trained on these images, and answer together.
    """

    mode: Literal["val", "ensemble"] = "val"
    tried: Annotated[tuple[Candidate, ...], Strict(False)]
    chosen: int | None = None

    @model_validator(mode="after")
    def _chooses_by_its_mode(self) -> "Selection":
        if self.mode == "ensemble" and self.chosen is not None:
            raise ValueError("an ensemble has no chosen candidate")
        if self.mode == "val" and not (
            self.chosen is not None and 0 <= self.chosen < len(self.tried)
        ):
            raise ValueError("a selection on val names one of its candidates as chosen")
        return self

    @property
    def values(self) -> tuple[dict[str, Scalar], ...]:
        """The values of the trained networks: of the chosen candidate, or of every member."""
        kept = self.tried if self.chosen is None else (self.tried[self.chosen],)
        return tuple(one.values for one in kept)


class Parameters(Frozen):
    """Parameter counts: trained adapter and head, and frozen backbone, of each network."""

    adapter: int
    head: int
    backbone: int
    teacher_adapter: int | None = None
    teacher_head: int | None = None
    teacher_backbone: int | None = None


class ImageCounts(Frozen):
    """The number of images in each split.

    `unreadable` counts images that were left out. `test_in_training` counts test images whose bytes
    equal those of a training or validation image.
    """

    train: int
    val: int
    test: int
    unreadable: int = 0
    test_in_training: int = 0


class RawPixels(Frozen):
    """The input of raw-pixel baselines: side in pixels (at most 32), and numbers of images."""

    size: int
    train: int
    test: int


class Source(Frozen):
    """The place of a checkpoint on the Hub: repository, commit, and the requested revision."""

    repo: str
    commit: str
    subfolder: str = ""
    asked: str


class Result(Frozen):
    """The outcome of one recipe with one seed.

    `top1` is the top-1 of the student on test after the last epoch, a fraction; `student` and
    `teacher` hold all metrics. `logit_ensemble` has those of the mean of both networks' logits, or
    with `task_loss = "joint"`, which trains the two to answer together, of their sum.
    `top1_best_on_test` exists only under `protocol = "paper"` and is optimistic. `kind` is `run`
    for a training, `eval` for a checkpoint evaluated later. `stack` lists the runs that were
    trained in one pass, this one included, `threads` is the number of threads of a training off
    CUDA, and `processes` that of processes that trained the run together, if there were several;
    these and `switches` can change the last bits. `seconds` is the time of the training in all
    processes that did a part of it, of a shared pass this run's share; that of the candidates of
    `selection = "val"` does not count. `peak_memory` is that of the whole pass in bytes, in the
    first process of several that trained together, and of several passes the largest.
    `data_copy` names the source that the images were downloaded from. `raw_pixels` is set if the
    raw-pixel baselines saw fewer images or smaller ones. `diverged` marks a training that diverged
    and was kept on purpose.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Literal["run", "eval"]
    top1: float
    top1_interval: Annotated[tuple[float, float], Strict(False)]
    top1_best_on_test: float | None = None
    student: Metrics
    teacher: Metrics | None = None
    logit_ensemble: Metrics | None = None
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
    threads: int | None = None
    processes: int | None = None
    seconds: float = Field(ge=0)
    images_per_second: float | None = Field(default=None, ge=0)
    peak_memory: int | None = Field(default=None, ge=0)
    finished: str
    files: dict[str, str] = Field(default_factory=dict)

    @property
    def networks(self) -> dict[str, Metrics]:
        """The metrics of each network that has some, by the name of the field."""
        found = {name: getattr(self, name) for name in ("student", "teacher", "logit_ensemble")}
        return {name: metrics for name, metrics in found.items() if metrics is not None}

    @property
    def label(self) -> str:
        """pair/adapter/task: the first three folders of the run below --out."""
        return f"{self.recipe.pair.name}/{self.recipe.adapter.label}/{self.recipe.task.id}"

    @property
    def reached(self) -> dict[str, float]:
        """The top-1 of each baseline by name; chance is added to results that lack it."""
        return {"chance": 1 / self.recipe.task.num_classes} | self.baselines

    @property
    def standing(self) -> Standing:
        """The comparison of `top1` with the baselines, and whether there are too few images."""
        return Standing(
            baselines=compare(self.top1, self.top1_interval, self.reached),
            too_few_images=are_too_few(self.student.count, self.top1_interval),
        )

    def as_document(self) -> dict[str, Any]:
        """The document that commands print: `as_json` with `standing`."""
        return {**self.as_json(), "standing": self.standing.model_dump(mode="json")}

    def as_json(self) -> dict[str, Any]:
        """All fields that apply, as values of JSON."""
        return self.model_dump(mode="json", exclude_none=True)

    def __str__(self) -> str:
        """A summary of a few lines."""
        return "\n".join(_summary(self))

    def __rich__(self) -> "Text":
        """The summary for rich, which would read brackets in names as markup."""
        from rich.text import Text

        return Text(str(self))

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """The fields that identify a result; all fields would fill pages."""
        yield "label", self.label
        yield from ((name, getattr(self, name)) for name in ("kind", "seed", "top1"))


def _summary(result: Result) -> Iterator[str]:
    teacher = result.recipe.pair.teacher
    trained_with = "alone" if teacher is None else f"with {teacher.name}"
    if offline := result.recipe.offline_teachers:
        several = f"{len(offline)} teachers, " if len(offline) > 1 else ""
        names = " and ".join(one.backbone.name for one in offline)
        trained_with = f"with the fixed logits of {several}{names}"
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
    joint = result.recipe.task_loss == "joint"
    if result.logit_ensemble is not None:
        both = result.logit_ensemble
        what = "student and teacher together" if joint else "mean of both networks' logits"
        yield f"  {what} {percent(both.top1)} {interval(both.top1_interval)}"
    if joint:
        yield f"  {JOINT}"
    if result.top1_best_on_test is not None:
        best = percent(result.top1_best_on_test)
        yield f"  best epoch on test {best} (protocol = paper: chosen on test, optimistic)"
    if result.recipe.watch in WATCHED:
        yield f"  {WATCHED[result.recipe.watch]}"
    if result.selection is not None:
        yield f"  {_selected(result.selection)}"
    trained = result.parameters.adapter + result.parameters.head
    peak = "" if result.peak_memory is None else f", peak {result.peak_memory / 2**20:,.0f} MiB"
    yield (
        f"  {trained:,} trained numbers (adapter {result.parameters.adapter:,}), "
        f"{result.seconds:.0f} s on {result.device}{peak}"
    )


def _selected(selection: Selection) -> str:
    """The chosen candidate and its top-1 on val200, or the members of an ensemble."""
    tried = selection.tried
    if selection.chosen is None:
        members = "; ".join(values_in_words(one.values) for one in tried)
        return f"ensemble of {len(tried)}: {members}"
    chosen = tried[selection.chosen]
    top1 = "" if chosen.val_top1 is None else f" ({percent(chosen.val_top1)})"
    return f"chosen on val200 from {len(tried)}: {values_in_words(chosen.values)}{top1}"


def raw_pixels_in_words(pixels: RawPixels) -> str:
    """`raw pixels: 32 x 32, 1,000 images for training, 5,000 for test`."""
    return (
        f"raw pixels: {pixels.size} x {pixels.size}, {pixels.train:,} images for training, "
        f"{pixels.test:,} for test"
    )


def write_result(path: Path, result: Result) -> None:
    """Write a result.json, with its digest as the last member.

    Raises: RunFolderError if it cannot be written.
    """
    from idat_zoo import files  # only a writer needs it

    files.write_whole(path, with_digest(files.dump_json(result.as_json())))


def load_result(path: Path, *, by_class: bool = True) -> Result:
    """Read a result.json of this schema or an older one.

    With `by_class = False` the metrics have no tables by class, which fill most of a file.

    Raises: ZooError for a file that is no result, is damaged, has a newer schema, holds numbers
    that contradict each other, or has a digest that is not that of its content.
    """
    try:
        content = path.read_bytes()
        document = without_digest(content if by_class else without_confusions(content))
        result = Result.model_validate_json(document)
    except OSError as error:
        raise ZooError(f"cannot read result '{path}': {error}") from None
    except ValidationError as error:
        check_schema(path, content)
        if any(fault["loc"] == ("digest",) for fault in error.errors()):  # not the last any more
            raise _edited(path) from None
        faults = "\n  ".join(describe_faults(error, where=str(path)))
        raise ZooError(faults, hint="" if digest_fits(content) else EDITED) from None
    if result.schema_version > SCHEMA_VERSION or "schema_version" not in result.model_fields_set:
        check_schema(path, content)
    networks = result.networks
    if contradiction := find_contradiction(result.top1, result.top1_interval, networks):
        raise ZooError(
            f"'{path}' contradicts itself: {contradiction}.",
            hint=EDITED,
        )
    if not digest_fits(content):
        raise _edited(path)
    if by_class:
        return result
    empty = {"per_class": (), "confusion": ()}
    return result.model_copy(
        update={name: one.model_copy(update=empty) for name, one in networks.items()}
    )


def _edited(path: Path) -> ZooError:
    return ZooError(f"{edited_in_words(path)}.", hint=EDITED)


@uncollected()
def find_results(folders: list[Path], *, by_class: bool = True) -> list[tuple[Path, Result]]:
    """Every result.json at or below the folders, in order of path; `by_class` as in `load_result`.

    Raises: ZooError if there is none, or one cannot be read.
    """
    return [(path, load_result(path, by_class=by_class)) for path in result_paths(folders)]


def now() -> str:
    """The present time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
