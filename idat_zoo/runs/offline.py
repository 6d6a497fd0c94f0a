"""Offline distillation: a teacher that was trained before, of which a run reads the logits alone.

The recipe names the teacher by its backbone, its adapter, and the SHA-256 of its tensor file. Its
logits of the training images are computed once, when the training begins.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float32
from torch import Tensor

from idat_zoo.backbones.pair import Backbones
from idat_zoo.checkpoint.loading import load_checkpoint
from idat_zoo.checkpoint.opened import Opened
from idat_zoo.data.decode import Images
from idat_zoo.errors import CheckpointError
from idat_zoo.logits import predict_logits
from idat_zoo.recipe import Recipe, check_recipe
from idat_zoo.specs import DEFAULT_TERM, TermSpec


def with_offline_teacher(recipe: Recipe, teacher: Opened) -> Recipe:
    """The recipe with a checkpoint as its offline teacher.

    A recipe that is offline already must name this very checkpoint. The term of a recipe without a
    teacher is the default one.

    Raises: CheckpointError for another checkpoint than the recipe names; RecipeError if the recipe
    cannot have an offline teacher.
    """
    if recipe.teacher_mode == "offline":
        _check_same(recipe, teacher)
        return recipe
    _check_single(teacher)
    config, pair = teacher.config, recipe.pair
    if pair.teacher != config.backbone:
        name = f"{config.backbone.name}_to_{pair.student.name}"
        pair = pair.model_copy(update={"name": name, "teacher": config.backbone})
    fields = dict(recipe) | {
        "pair": pair,
        "teacher_adapter": config.adapter,
        "teacher_mode": "offline",
        "teacher_sha256": config.tensors_sha256,
    }
    if recipe.pair.teacher is None:
        fields["distillation"] = TermSpec(name=DEFAULT_TERM)
    return check_recipe(fields, where="--teacher-from")


def with_offline_teachers(recipes: Sequence[Recipe], teacher: Opened) -> list[Recipe]:
    """Each recipe with the checkpoint as its offline teacher. Raises: as `with_offline_teacher`."""
    return [with_offline_teacher(recipe, teacher) for recipe in recipes]


def check_offline_teacher(recipe: Recipe, teacher: Opened | None) -> None:
    """Check that the checkpoint is the one that an offline recipe names, and of its task.

    Raises: CheckpointError.
    """
    if recipe.teacher_mode != "offline":
        return
    if teacher is None:
        raise CheckpointError(
            f"the recipe's offline teacher is the checkpoint with SHA-256 "
            f"{(recipe.teacher_sha256 or '')[:12]}…, and none is given.",
            hint="--teacher-from REF (in Python teacher_from=REF) says where it is.",
        )
    _check_same(recipe, teacher)
    _check_single(teacher)
    own, other = recipe.task, teacher.config.recipe.task
    if (own.id, own.num_classes) != (other.id, other.num_classes):
        raise CheckpointError(
            f"the teacher '{teacher}' was trained on task '{other.id}' ({other.num_classes} "
            f"classes); this run's task is '{own.id}' ({own.num_classes} classes)."
        )


def _check_single(teacher: Opened) -> None:
    """Refuse an ensemble, which gives log probabilities in place of logits."""
    if teacher.config.members:
        raise CheckpointError(
            f"the teacher '{teacher}' is an ensemble of {len(teacher.config.members)}; an offline "
            "teacher is a single network, of which logits are read."
        )


def _check_same(recipe: Recipe, teacher: Opened) -> None:
    found = teacher.config.tensors_sha256
    if found != recipe.teacher_sha256:
        raise CheckpointError(
            f"the teacher '{teacher}' is not the one of the recipe: expected an "
            f"adapter_model.safetensors with SHA-256 {(recipe.teacher_sha256 or '')[:12]}…, this "
            f"one has {found[:12]}….",
            hint="It was trained again, or --teacher-from names another checkpoint.",
        )


def offline_logits(
    teacher: Opened, images: Images, *, backbones: Backbones
) -> Float32[Tensor, "N K"]:
    """The teacher's float32 logits `[N, K]` of images, on the CPU.

    Raises: what `load_checkpoint` raises; DivergedError for logits that are not finite.
    """
    backbone = backbones.load(teacher.config.backbone, "float32")
    found = load_checkpoint(teacher, backbone=backbone)
    network = found.single_network("an offline teacher is a single network").to(backbones.device)
    with torch.no_grad():
        return predict_logits(network, images, device=backbones.device)
