"""The table of contents of the project: recipe -> models -> loop -> checkpoint -> result."""

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from idat_zoo import files
from idat_zoo.backbones.frozen import missing_weights, weights_path
from idat_zoo.backbones.network import Network
from idat_zoo.backbones.pair import NetworkPair, Role, build_pair, count_parameters
from idat_zoo.checkpoint import load_checkpoint, probe_logits, write_checkpoint
from idat_zoo.data import Reading, Split, TaskData, load_task
from idat_zoo.data.baselines import raw_pixel_baselines
from idat_zoo.data.folder import split_csv
from idat_zoo.data.reading import Listener
from idat_zoo.engine.precision import describe_device, find_device, resolve_precision
from idat_zoo.engine.train import EpochLog, Trainer
from idat_zoo.errors import DataError, DeviceError, RunFolderError
from idat_zoo.evaluation import predict_logits
from idat_zoo.layouts import missing_lists
from idat_zoo.metrics import Metrics, score
from idat_zoo.recipe import Backbone, Recipe, Scalar, check_recipe
from idat_zoo.recipe_toml import dump_recipe
from idat_zoo.results import (
    PREDICTIONS_FILE,
    RESULT_FILE,
    Candidate,
    ImageCounts,
    Parameters,
    Result,
    Selection,
    now,
    versions,
)
from idat_zoo.run_folder import (
    LOG_FILE,
    PROBE_FILE,
    RECIPE_FILE,
    SELECTION_FOLDER,
    SPLIT_FILE,
    STATE_FILE,
    TEACHER_FOLDER,
    claim,
    digests,
    recipe_hash,
    run_folder,
    tidy,
)


class Progress(Listener):
    """Hears how a run goes; this one says nothing. The command line draws a bar."""

    def stage(self, name: str, *, done: int, epochs: int, steps: int, images: int) -> None:
        """A training begins, `done` of its epochs done before; steps per epoch, images per step."""

    def step(self) -> None:
        """One optimisation step is done."""

    def epoch(self, log: EpochLog) -> None:
        """One epoch is done."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Where a training computes and keeps what it needs to go on; the data it was begun with."""

    folder: Path
    seed: int
    device: torch.device
    fingerprint: str
    progress: Progress = field(default_factory=Progress)


def run(
    recipe: Recipe,
    *,
    seed: int = 0,
    device: str = "auto",
    data_dir: Path | None = None,
    reading: Reading | None = None,
    out: Path | str = "runs",
    resume: bool = False,
    download: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Train a recipe, write its run folder, and return its result.

    A finished run is not repeated: its result is returned. An unfinished one needs `resume`.
    `download` allows fetching missing backbone weights; `reading` says how images are read.

    Raises: ZooError and its kinds, each saying what to do; what was saved before stays.
    """
    progress = progress or Progress()
    where = find_device(device)
    recipe = resolve_precision(recipe, where)
    folder = run_folder(Path(out), recipe, seed)
    finished = claim(folder, recipe, out=Path(out), resume=resume)
    if finished is not None:
        progress.note(f"finished before: {folder}")
        return finished
    require_inputs(recipe, data_dir, seed=seed, download=download)
    with plain_memory_errors(recipe):
        views = load_views(recipe, data_dir=data_dir, seed=seed, reading=reading, listener=progress)
        job = Job(
            folder=folder, seed=seed, device=where, fingerprint=begun_on(views), progress=progress
        )
        files.write_whole(folder / RECIPE_FILE, dump_recipe(recipe).encode())
        _keep_split(recipe, views["student"], folder)
        selection = select(recipe, views, job) if recipe.selection == "val" else None
        final = recipe if selection is None else _with_values(recipe, _chosen(selection))
        watched = views["student"].test if recipe.protocol == "paper" else None
        trainval = {role: data.trainval for role, data in views.items()}
        fitted = fit(final, trainval, job, test=watched)
        return _finish(fitted, views, job, asked=recipe, final=final, selection=selection)


Views = Mapping[Role, TaskData]
"""The task's images at each network's input size: one and the same where the sizes are equal."""


def load_views(
    recipe: Recipe,
    *,
    data_dir: Path | None,
    seed: int,
    reading: Reading | None = None,
    listener: Listener | None = None,
) -> Views:
    """The recipe's task for each of its networks. Raises what `load_task` raises."""
    sizes: dict[Role, int] = {"student": recipe.pair.student.img_size}
    if recipe.pair.teacher is not None:
        sizes["teacher"] = recipe.pair.teacher.img_size
    at_size = {
        size: load_task(
            recipe.task,
            img_size=size,
            data_dir=data_dir,
            seed=seed,
            reading=reading,
            listener=listener,
        )
        for size in dict.fromkeys(sizes.values())
    }
    return {role: at_size[size] for role, size in sizes.items()}


def begun_on(views: Views) -> str:
    """The fingerprints of all sizes: what may not change between a training's begin and end."""
    return "".join(dict.fromkeys(data.fingerprint for data in views.values()))


def _keep_split(recipe: Recipe, data: TaskData, folder: Path) -> None:
    """One's own images keep the split that was made of them."""
    if recipe.task.suite == "folder" and data.listing is not None:
        files.write_whole(folder / SPLIT_FILE, split_csv(data.listing))


def missing_inputs(
    recipe: Recipe, data_dir: Path | None, *, seed: int = 0, download: bool = False
) -> list[str]:
    """What a run needs and does not find here, each with the way to get it."""
    missing = []
    images = missing_lists(recipe.task, data_dir, seed=seed)
    if images:
        missing.append(f"{images}; get the folders (docs/data.md), then --data-dir DIR")
    if not download:
        repos = [missing_weights(spec) for spec in _backbones(recipe)]
        missing += [f"weights of '{r}'; --yes downloads them from the Hub" for r in repos if r]
    return missing


def _backbones(recipe: Recipe) -> list[Backbone]:
    pair = recipe.pair
    return [pair.student] if pair.teacher is None else [pair.teacher, pair.student]


def require_inputs(recipe: Recipe, data_dir: Path | None, *, seed: int, download: bool) -> None:
    """Check that images and weights are here; with `download`, fetch weights that are not.

    Raises: DataError naming at once all that is missing, and a command that needs nothing;
    WeightsError where a download fails.
    """
    missing = missing_inputs(recipe, data_dir, seed=seed, download=download)
    if missing:
        raise DataError(
            f"'{recipe.pair.name}/{recipe.adapter.name}/{recipe.task.id}' needs what is not here:"
            + "".join(f"\n  - {line}" for line in missing),
            hint=f"Needs no download: idat train --task digits --adapter {recipe.adapter.name}",
        )
    for spec in _backbones(recipe):
        if missing_weights(spec):
            weights_path(spec)


@contextmanager
def plain_memory_errors(recipe: Recipe) -> Iterator[None]:
    """Memory that runs out becomes one sentence; whatever was saved stays. Raises: DeviceError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        own = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not own and "can't allocate memory" not in str(error):
            raise
        raise DeviceError(
            f"out of memory with batch_size = {recipe.batch_size}.",
            hint=f"Try batch_size={max(1, recipe.batch_size // 2)}. What was saved is kept.",
        ) from error


@dataclass(frozen=True)
class Fitted:
    """A trained pair, its log, and what this process spent on it."""

    pair: NetworkPair
    logs: list[EpochLog]
    seconds: float
    images: int

    @property
    def images_per_second(self) -> float | None:
        """None where a resumed training had nothing left to do."""
        return self.images / self.seconds if self.images else None


def fit(
    recipe: Recipe,
    splits: Mapping[Role, Split],
    job: Job,
    *,
    name: str = "train",
    test: Split | None = None,
) -> Fitted:
    """Train on a split, saving after every epoch; goes on from what a stopped process left.

    `splits` are the same images at each network's size. `test` is read after every epoch, for
    `protocol = "paper"` alone.
    """
    pair = build_pair(recipe, seed=job.seed, device=job.device)
    images = {role: splits[role].held for role, _ in pair.roles()}
    targets = splits["student"].targets
    trainer = Trainer(pair, images, targets, recipe, seed=job.seed, device=job.device)
    if trainer.batch_size < recipe.batch_size:
        job.progress.note(
            f"batches hold {trainer.batch_size} images instead of {recipe.batch_size}: there are "
            "no more to train on"
        )
    logs = _restore(trainer, job)
    done, steps, batch = len(logs), trainer.steps_per_epoch, trainer.batch_size
    job.progress.stage(name, done=done, epochs=trainer.epochs, steps=steps, images=batch)
    started = time.perf_counter()
    for epoch in range(done, trainer.epochs):
        log = trainer.train_epoch(epoch, job.progress.step)
        if test is not None:
            log = replace(log, test_top1=_score(pair.student, test, recipe, job).top1)
        logs.append(log)
        _save(trainer, logs, job)
        job.progress.epoch(log)
    seconds = time.perf_counter() - started
    return Fitted(pair, logs, seconds, images=(trainer.epochs - done) * steps * batch)


def _save(trainer: Trainer, logs: list[EpochLog], job: Job) -> None:
    lines = "".join(json.dumps(log.as_json()) + "\n" for log in logs)
    files.write_whole(job.folder / LOG_FILE, lines.encode())
    reached = {"epochs": torch.tensor(len(logs)), "begun_with": _begun_with(trainer, job)}
    files.write_whole(job.folder / STATE_FILE, files.dump_tensors(trainer.state() | reached))


def _restore(trainer: Trainer, job: Job) -> list[EpochLog]:
    """The log up to the last saved epoch, with the trainer set to go on behind it."""
    path = job.folder / STATE_FILE
    if not path.exists():
        return []
    try:
        state = files.parse_tensors(path.read_bytes())
    except ValueError as error:
        raise RunFolderError(f"'{path}' is damaged: {error}", hint="Remove the folder.") from None
    if not state["begun_with"].equal(_begun_with(trainer, job)):
        raise RunFolderError(
            f"'{job.folder}' was begun on other data or other backbone weights than these.",
            hint="They changed since. Restore them, or choose another --out.",
        )
    trainer.load_state(state)
    lines = (job.folder / LOG_FILE).read_text().splitlines()[: int(state["epochs"])]
    return [EpochLog(**json.loads(line)) for line in lines]


def _begun_with(trainer: Trainer, job: Job) -> Tensor:
    """What may not change between a training's begin and its end, as bytes."""
    weights = [network.backbone.sha256 for _, network in trainer.pair.roles()]
    return torch.tensor(list("".join([job.fingerprint, *weights]).encode()), dtype=torch.uint8)


def select(recipe: Recipe, views: Views, job: Job) -> Selection:
    """Try each candidate on train, score its last epoch on val, choose the best.

    Of equals the first. Test is not read. Every candidate has a folder below the job's, where it
    is resumed or reused.

    Raises: DataError where the task has nothing to choose on.
    """
    if not len(views["student"].val):
        raise DataError(f"task '{recipe.task.id}' has no images to choose on: selection=none")
    tried = []
    settings = list(_settings(recipe))
    train = {role: data.train for role, data in views.items()}
    for number, values in enumerate(settings):
        place = job.folder / SELECTION_FOLDER / f"{number}"
        candidate = _with_values(recipe, values)
        score_file = place / "val.json"
        if score_file.exists():
            tried.append(Candidate.model_validate_json(score_file.read_bytes()))
            continue
        name = f"candidate {number + 1} of {len(settings)}"
        fitted = fit(candidate, train, replace(job, folder=place), name=name)
        metrics = _score(fitted.pair.student, views["student"].val, candidate, job)
        tried.append(Candidate(values=values, val_top1=metrics.top1))
        files.write_whole(score_file, files.dump_json(tried[-1].model_dump(mode="json")))
    best = max(range(len(tried)), key=lambda i: tried[i].val_top1)
    return Selection(tried=tuple(tried), chosen=best)


def _settings(recipe: Recipe) -> Iterator[dict[str, Scalar]]:
    """Every combination of the candidates' values, in the order they are written."""
    names = list(recipe.candidates)
    for values in itertools.product(*recipe.candidates.values()):
        yield dict(zip(names, values, strict=True))


def _chosen(selection: Selection) -> dict[str, Scalar]:
    return selection.tried[selection.chosen].values


def _with_values(recipe: Recipe, values: dict[str, Scalar]) -> Recipe:
    """The recipe with one setting in place of its candidates. `adapter.X` is an option of both."""
    fields = recipe.model_dump() | {"selection": "none", "candidates": {}}
    for name, value in values.items():
        role, _, option = name.rpartition(".")
        if role:
            fields[role]["options"][option] = value
        else:
            fields[name] = value
    return check_recipe(fields, where="candidates")


def _finish(
    fitted: Fitted,
    views: Views,
    job: Job,
    *,
    asked: Recipe,
    final: Recipe,
    selection: Selection | None,
) -> Result:
    """Checkpoints, predictions, probe, and last of all the result.

    `asked` is the run's recipe, `final` the one with the selected values in it.
    """
    pair, folder, digest = fitted.pair, job.folder, recipe_hash(asked)
    data = views["student"]
    logits = {
        role: _predict(network, views[role].test, final, job) for role, network in pair.roles()
    }
    for role, network in pair.roles():
        place = folder if role == "student" else folder / TEACHER_FOLDER
        write_checkpoint(place, network, final, role=role, recipe_hash=digest, seed=job.seed)
    predictions = {"index": data.test.index, "target": data.test.targets} | logits
    files.write_whole(folder / PREDICTIONS_FILE, files.dump_tensors(predictions))
    probe = probe_logits(load_checkpoint(folder).network)
    files.write_whole(folder / PROBE_FILE, files.dump_tensors({"logits": probe}))
    metrics = {role: score(z, data.test.targets) for role, z in logits.items()}
    watched = [log.test_top1 for log in fitted.logs if log.test_top1 is not None]
    result = Result(
        kind="run",
        top1=metrics["student"].top1,
        top1_interval=metrics["student"].top1_interval,
        top1_best_on_test=max(watched, default=None),
        student=metrics["student"],
        teacher=metrics.get("teacher"),
        selection=selection,
        images=ImageCounts(**data.counts()),
        baselines=raw_pixel_baselines(data),
        parameters=Parameters(**count_parameters(pair.roles())),
        recipe=asked,
        recipe_hash=digest,
        seed=job.seed,
        data_fingerprint=data.fingerprint,
        backbone_sha256={role: network.backbone.sha256 for role, network in pair.roles()},
        device=describe_device(job.device),
        versions=versions(),
        seconds=fitted.seconds,
        images_per_second=fitted.images_per_second,
        finished=now(),
        files=digests(folder),
    )
    files.write_whole(folder / RESULT_FILE, files.dump_json(result.as_json()))
    tidy(folder)
    return result


def _predict(network: Network, split: Split, recipe: Recipe, job: Job) -> Tensor:
    assert recipe.precision != "auto"
    return predict_logits(network, split.images, device=job.device, precision=recipe.precision)


def _score(network: Network, split: Split, recipe: Recipe, job: Job) -> Metrics:
    return score(_predict(network, split, recipe, job), split.targets)
