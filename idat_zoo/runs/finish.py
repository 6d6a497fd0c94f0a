"""The last stage of a run: write its checkpoints, predictions and probe, and then its result."""

from collections.abc import Mapping, Sequence

import torch

from idat_zoo import files
from idat_zoo.backbones.ensemble import Ensemble
from idat_zoo.backbones.network import Network
from idat_zoo.backbones.pair import Role, count_parameters
from idat_zoo.baselines import find_baselines
from idat_zoo.candidates import combinations
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
    Candidate,
    ImageCounts,
    Parameters,
    Result,
    Selection,
    now,
    write_result,
)
from idat_zoo.runs.folder import PROBE_FILE, TEACHER_FOLDER, digests, tidy
from idat_zoo.runs.loaded import LoadedRun
from idat_zoo.runs.saved_state import Spent
from idat_zoo.runs.training import Trained
from idat_zoo.scoring import score
from idat_zoo.versions import versions


def finish(
    run: LoadedRun, trained: Trained, *, final: Recipe, selection: Selection | None
) -> Result:
    """Evaluate a trained pair on test, and write all files of a finished run into its folder.

    `final` is the run's recipe with the selected candidate's values in place.

    Raises: RunFolderError if another process has taken over the folder.
    """
    return _write(run, dict(trained.pair.roles()), [trained], final=final, selection=selection)


def finish_ensemble(run: LoadedRun, members: Sequence[Trained]) -> Result:
    """Evaluate the members of an ensemble together on test, and write all files of its run.

    Their teachers, where they have some, are neither stored nor evaluated.

    Raises: RunFolderError if another process has taken over the folder.
    """
    tried = [
        Candidate(values=values, diverged=one.divergence is not None)
        for values, one in zip(combinations(run.planned.recipe), members, strict=True)
    ]
    return _write(
        run,
        {"student": Ensemble([one.pair.student for one in members])},
        members,
        final=run.planned.recipe,
        selection=Selection(mode="ensemble", tried=tuple(tried)),
    )


def _write(
    run: LoadedRun,
    networks: Mapping[Role, Network | Ensemble],
    trained: Sequence[Trained],
    *,
    final: Recipe,
    selection: Selection | None,
) -> Result:
    """Evaluate networks on test, and write all files of a finished run into its folder."""
    recipe, seed, folder = run.planned.recipe, run.planned.seed, run.planned.folder
    digest, data = recipe_hash(recipe), run.views["student"]
    diverged = any(one.divergence is not None for one in trained)
    device = networks["student"].mean.device
    run.still_ours()
    final = final.model_copy(update={"task": data.task})  # this task has the names of its classes
    logits = {
        role: predict_split(network, run.views[role].test, final)
        for role, network in networks.items()
    }
    for role, network in networks.items():
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
    logs = [log for one in trained for log in one.logs]
    tested = [log.test_top1 for log in logs if log.test_top1 is not None]
    best = max(tested, default=None) if recipe.protocol == "paper" else None
    spent = sum((one.spent for one in trained), start=Spent())
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
        parameters=Parameters(**count_parameters(networks.items())),
        recipe=recipe.model_copy(update={"task": data.task}),
        recipe_hash=digest,
        seed=seed,
        data_fingerprint=data.fingerprint,
        data_copy=data.copy,
        backbone_sha256={role: network.backbone.sha256 for role, network in networks.items()},
        device=describe_device(device),
        versions=versions(),
        switches=trained[0].switches,
        stack=tuple(dict.fromkeys(label for one in trained for label in one.stack)),
        processes=trained[0].processes if trained[0].processes > 1 else None,
        threads=None if device.type == "cuda" else torch.get_num_threads(),
        seconds=spent.seconds,
        images_per_second=spent.images / spent.seconds if spent.images else None,
        peak_memory=spent.peak_memory,
        finished=now(),
        files=digests(folder),
    )
    write_result(folder / RESULT_FILE, result)
    tidy(folder)
    return result
