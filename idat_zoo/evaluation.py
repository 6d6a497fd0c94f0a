"""The evaluation of a checkpoint on the test split of its task."""

import time
from pathlib import Path

from idat_zoo import files
from idat_zoo.backbones.pair import Backbones, count_parameters
from idat_zoo.baselines import find_baselines
from idat_zoo.checkpoint.config import Config
from idat_zoo.checkpoint.loading import load_checkpoint
from idat_zoo.checkpoint.opened import Opened, Reference, open_checkpoint
from idat_zoo.data.arrays import Data, read_arrays
from idat_zoo.data.load import load_task
from idat_zoo.data.reading import Listener, Reading
from idat_zoo.engine.precision import computing, describe_device, find_device, resolve_precision
from idat_zoo.errors import RunFolderError, ZooError
from idat_zoo.hub.references import HubReference
from idat_zoo.logits import predict_split
from idat_zoo.results import (
    PREDICTIONS_FILE,
    RESULT_FILE,
    Candidate,
    ImageCounts,
    Parameters,
    Result,
    Selection,
    Source,
    load_result,
    now,
    write_result,
)
from idat_zoo.scoring import score
from idat_zoo.switches import Switches
from idat_zoo.versions import versions


def _check_free(out: Path) -> None:
    """Refuse to overwrite anything but an earlier evaluation. Raises: RunFolderError."""
    path = out / RESULT_FILE
    if not path.exists():
        return
    told = "a run's result"
    try:
        if load_result(path).kind == "eval":
            return
    except ZooError:
        told = "no result of an evaluation"
    raise RunFolderError(f"'{path}' is {told}.", hint="Choose another --out.")


def evaluate(
    reference: Reference | Opened,
    *,
    device: str = "auto",
    data_dir: Path | str | None = None,
    data: Data | None = None,
    reading: Reading | None = None,
    out: Path | None = None,
    listener: Listener | None = None,
    backbones: Backbones | None = None,
) -> Result:
    """Evaluate a checkpoint on the test split of its task.

    `reference` is one that `load_checkpoint` takes, or a checkpoint that is already open. With
    `out`, result.json and the predictions are written there. `backbones` holds the backbones that
    earlier evaluations loaded on the device, to be used again. `data` are the images and labels
    that a Python program holds; a checkpoint that was trained on such data needs the same data.

    Raises: what `load_checkpoint` raises; DataError if the task's images are missing;
    RunFolderError if `out` holds a result that is not of an evaluation.
    """
    started = time.perf_counter()
    if out is not None:
        _check_free(out)
    where = find_device(device)
    backbones = backbones or Backbones(where)
    opened = open_checkpoint(reference)
    config = opened.config
    recipe = resolve_precision(config.recipe, where)
    images = load_task(
        recipe.task,
        img_size=config.backbone.img_size,
        data_dir=None if data_dir is None else Path(data_dir),
        seed=config.seed,
        reading=reading,
        listener=listener,
        arrays=None if data is None else read_arrays(data),
    )
    backbone = backbones.load(config.backbone, "float32")
    network = load_checkpoint(opened, backbone=backbone).network.to(where)
    with computing(Switches(), where):
        logits = predict_split(network, images.test, recipe)
    metrics = score(logits, images.test.targets, images.task.class_names)
    baselines = find_baselines(images, (reading or Reading()).cache)
    predictions = {"index": images.test.index, "target": images.test.targets, "student": logits}
    digests = {}
    if out is not None:
        files.write_whole(out / PREDICTIONS_FILE, files.dump_tensors(predictions))
        digests[PREDICTIONS_FILE] = files.sha256(out / PREDICTIONS_FILE)
    result = Result(
        kind="eval",
        top1=metrics.top1,
        top1_interval=metrics.top1_interval,
        student=metrics,
        selection=_members_of(config),
        images=ImageCounts(**images.counts()),
        baselines=baselines.top1,
        raw_pixels=baselines.raw_pixels,
        diverged=config.diverged,
        parameters=Parameters(**count_parameters([("student", network)])),
        recipe=config.recipe.model_copy(update={"task": images.task}),
        recipe_hash=config.recipe_hash,
        seed=config.seed,
        checkpoint=_source_of(opened.on_hub),
        data_fingerprint=images.fingerprint,
        data_copy=images.copy,
        backbone_sha256={config.role: network.backbone.sha256},
        device=describe_device(where),
        versions=versions(),
        seconds=time.perf_counter() - started,
        finished=now(),
        files=digests,
    )
    if out is not None:
        write_result(out / RESULT_FILE, result)
    return result


def _members_of(config: Config) -> Selection | None:
    """The members of an ensemble; None for a single network."""
    if not config.members:
        return None
    tried = tuple(Candidate(values=values) for values in config.members)
    return Selection(mode="ensemble", tried=tried)


def _source_of(place: HubReference | None) -> Source | None:
    """The place on the Hub, for the result; paths of this machine are never written into it."""
    if place is None or place.revision is None:
        return None
    return Source(
        repo=place.repo,
        commit=place.revision,
        subfolder=place.subfolder,
        asked=place.asked or place.revision,
    )
