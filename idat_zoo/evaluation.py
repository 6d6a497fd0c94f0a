"""Evaluate a network on a split, and a checkpoint on its task.

Shape letters: N images, C channels, H W image, K classes.
"""

import time
from pathlib import Path

import torch
from jaxtyping import Float32
from torch import Tensor

from idat_zoo import files
from idat_zoo.backbones.network import Network
from idat_zoo.backbones.pair import Backbones, count_parameters
from idat_zoo.baselines import find_baselines
from idat_zoo.checkpoint import Reference, find_config, load_checkpoint, pin
from idat_zoo.data.arrays import Data, read_arrays
from idat_zoo.data.decode import Images
from idat_zoo.data.load import load_task
from idat_zoo.data.reading import Listener, Reading
from idat_zoo.data.task_data import Split
from idat_zoo.engine.precision import (
    Precision,
    autocast,
    computing,
    describe_device,
    find_device,
    resolve_precision,
)
from idat_zoo.errors import DivergedError, RunFolderError, ZooError
from idat_zoo.hub import HubReference
from idat_zoo.metrics import Metrics
from idat_zoo.recipe import Recipe
from idat_zoo.results import (
    PREDICTIONS_FILE,
    RESULT_FILE,
    ImageCounts,
    Parameters,
    Result,
    Source,
    load_result,
    now,
    versions,
)
from idat_zoo.scoring import score
from idat_zoo.switches import Switches

BATCH = 256


@torch.inference_mode()
def predict_logits(
    network: Network,
    images: Images,
    *,
    device: torch.device,
    precision: Precision = "float32",
) -> Float32[Tensor, "N K"]:
    """Float32 logits on CPU, in batches of exactly 256, the last one padded with black images.

    One batch size for all, so that a number does not depend on how many images were asked for.

    Raises: DivergedError for logits that are not finite: no score can be made of them.
    """
    network.eval()
    logits = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH].contiguous().to(device)
        padding = batch.new_zeros(BATCH - len(batch), *batch.shape[1:])
        with autocast(device, precision):
            output = network(torch.cat([batch, padding]))
        logits.append(output[: len(batch)].float().cpu())
    found = torch.cat(logits)
    broken = int((~found.isfinite()).any(dim=1).sum())
    if broken:
        raise DivergedError(
            f"the network's outputs are not finite for {broken} of {len(found)} images, "
            "so there is nothing to score.",
            hint="Its training went too far: a lower learning rate often helps.",
        )
    return found


def score_network(network: Network, split: Split, recipe: Recipe) -> Metrics:
    """A network's metrics on a split, on the device where it is, in its recipe's precision."""
    return score(predict_split(network, split, recipe), split.targets)


def predict_split(network: Network, split: Split, recipe: Recipe) -> Float32[Tensor, "N K"]:
    """`predict_logits` on the device where the network is, in its recipe's precision."""
    assert recipe.precision != "auto", "precision is resolved before"
    device = network.mean.device
    return predict_logits(network, split.images, device=device, precision=recipe.precision)


def _check_free(out: Path) -> None:
    """An evaluation may take the place of one before it, never a run's or something else's."""
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
    reference: Reference,
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

    `reference` is one as `load_checkpoint` takes them. With `out`, result.json and the predictions
    are written there. `backbones` are those that other checkpoints brought to the device before.
    `data` are the images and labels that a run was given in the place of a folder, all of them.

    Raises: what `load_checkpoint` raises; DataError where the task's images are missing;
    RunFolderError where `out` holds another result than an evaluation's.
    """
    started = time.perf_counter()
    if out is not None:
        _check_free(out)
    where = find_device(device)
    backbones = backbones or Backbones(where)
    reference = pin(reference)
    config = find_config(reference)
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
    network = load_checkpoint(reference, backbone=backbone).network.to(where)
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
        images=ImageCounts(**images.counts()),
        baselines=baselines.top1,
        raw_pixels=baselines.raw_pixels,
        diverged=config.diverged,
        parameters=Parameters(**count_parameters([("student", network)])),
        recipe=config.recipe.model_copy(update={"task": images.task}),
        recipe_hash=config.recipe_hash,
        seed=config.seed,
        checkpoint=_source_of(reference),
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
        files.write_whole(out / RESULT_FILE, files.dump_json(result.as_json()))
    return result


def _source_of(reference: Reference) -> Source | None:
    """Where on the Hub a pinned reference is; the paths of this machine are nobody's business."""
    if not isinstance(reference, HubReference) or reference.revision is None:
        return None
    return Source(
        repo=reference.repo,
        commit=reference.revision,
        subfolder=reference.subfolder,
        asked=reference.asked or reference.revision,
    )
