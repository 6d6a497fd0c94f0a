"""The last stage of a run: write its checkpoints, predictions and probe, and then its result."""

import torch

from idat_zoo import files
from idat_zoo.backbones.pair import count_parameters
from idat_zoo.baselines import find_baselines
from idat_zoo.checkpoint.loading import load_checkpoint
from idat_zoo.checkpoint.probe import probe_logits
from idat_zoo.checkpoint.writing import write_checkpoint
from idat_zoo.engine.precision import describe_device
from idat_zoo.file_names import RESULT_FILE
from idat_zoo.logits import predict_split
from idat_zoo.metrics import Metrics
from idat_zoo.recipe import Recipe
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.results import (
    PREDICTIONS_FILE,
    ImageCounts,
    Parameters,
    Result,
    Selection,
    now,
    versions,
)
from idat_zoo.runs.folder import PROBE_FILE, TEACHER_FOLDER, digests, tidy
from idat_zoo.runs.loaded import LoadedRun
from idat_zoo.runs.training import Trained
from idat_zoo.scoring import score


def finish(
    run: LoadedRun, trained: Trained, *, final: Recipe, selection: Selection | None
) -> Result:
    """Evaluate a trained pair on test, and write all files of a finished run into its folder.

    `final` is the run's recipe with the selected candidate's values in place.

    Raises: RunFolderError if another process has taken over the folder.
    """
    recipe, seed, folder = run.planned.recipe, run.planned.seed, run.planned.folder
    pair, digest = trained.pair, recipe_hash(recipe)
    data, diverged = run.views["student"], trained.divergence is not None
    device = pair.student.mean.device
    run.still_ours()
    final = final.model_copy(update={"task": data.task})  # this task has the names of its classes
    logits = {
        role: predict_split(network, run.views[role].test, final) for role, network in pair.roles()
    }
    for role, network in pair.roles():
        write_checkpoint(
            folder if role == "student" else folder / TEACHER_FOLDER,
            network,
            final,
            role=role,
            recipe_hash=digest,
            seed=seed,
            diverged=diverged,
        )
    predictions = {"index": data.test.index, "target": data.test.targets} | logits
    files.write_whole(folder / PREDICTIONS_FILE, files.dump_tensors(predictions))
    probe = probe_logits(load_checkpoint(folder).network)
    files.write_whole(folder / PROBE_FILE, files.dump_tensors({"logits": probe}))
    metrics: dict[str, Metrics] = {
        role: score(z, data.test.targets, data.task.class_names) for role, z in logits.items()
    }
    if "teacher" in logits:
        both = logits["student"] + logits["teacher"]
        both = both if recipe.task_loss == "joint" else both / 2
        metrics["logit_ensemble"] = score(both, data.test.targets, data.task.class_names)
    baselines = find_baselines(data, run.cache)
    tested = [log.test_top1 for log in trained.logs if log.test_top1 is not None]
    best = max(tested, default=None) if recipe.protocol == "paper" else None
    result = Result(
        kind="run",
        top1=metrics["student"].top1,
        top1_interval=metrics["student"].top1_interval,
        top1_best_on_test=best,
        student=metrics["student"],
        teacher=metrics.get("teacher"),
        logit_ensemble=metrics.get("logit_ensemble"),
        selection=selection,
        images=ImageCounts(**data.counts()),
        baselines=baselines.top1,
        raw_pixels=baselines.raw_pixels,
        diverged=diverged,
        parameters=Parameters(**count_parameters(pair.roles())),
        recipe=recipe.model_copy(update={"task": data.task}),
        recipe_hash=digest,
        seed=seed,
        data_fingerprint=data.fingerprint,
        data_copy=data.copy,
        backbone_sha256={role: network.backbone.sha256 for role, network in pair.roles()},
        device=describe_device(device),
        versions=versions(),
        switches=trained.switches,
        stack=trained.stack,
        threads=None if device.type == "cuda" else torch.get_num_threads(),
        seconds=trained.seconds,
        images_per_second=trained.images_per_second,
        finished=now(),
        files=digests(folder),
    )
    files.write_whole(folder / RESULT_FILE, files.dump_json(result.as_json()))
    tidy(folder)
    return result
