"""Offline distillation: teachers that were trained before, of which a run reads the logits alone.

The recipe names each teacher by its backbone, its adapter, and the SHA-256 of its tensor file. The
logits of the training images are computed once, when the training begins. Several teachers answer
together, as the members of an ensemble do: by the log of the mean of their softmaxes.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float32
from torch import Tensor

from idat_zoo.backbones.ensemble import log_mean_softmax
from idat_zoo.backbones.pair import Backbones
from idat_zoo.checkpoint.loading import load_checkpoint
from idat_zoo.checkpoint.opened import Opened, Reference, open_checkpoint
from idat_zoo.data.decode import Images
from idat_zoo.errors import CheckpointError, UsageError
from idat_zoo.logits import predict_logits
from idat_zoo.recipe import Pair, Recipe, check_recipe
from idat_zoo.specs import DEFAULT_TERM, TeacherSpec, TermSpec

SEVERAL = "several"
"""What stands for the teacher in the name of a pair whose teachers have unlike backbones."""


def open_teachers(references: Reference | Sequence[Reference]) -> tuple[Opened, ...]:
    """Open the checkpoints of offline teachers; they are returned by ascending SHA-256.

    Raises: UsageError for a checkpoint that is given twice; what `open_checkpoint` raises.
    """
    if isinstance(references, str) or not isinstance(references, Sequence):
        references = [references]
    by_digest: dict[str, Opened] = {}
    for one in map(open_checkpoint, references):
        digest = one.config.tensors_sha256
        if digest in by_digest:
            raise UsageError(
                f"the teachers '{by_digest[digest]}' and '{one}' are the same checkpoint (SHA-256 "
                f"{digest[:12]}…); give each teacher once."
            )
        by_digest[digest] = one
    return tuple(by_digest[digest] for digest in sorted(by_digest))


def with_offline_teachers(recipe: Recipe, *teachers: Opened) -> Recipe:
    """The recipe with checkpoints as its offline teachers, in the order of `open_teachers`.

    A recipe that is offline already must name these very checkpoints. The term of a recipe without
    a teacher is the default one.

    Raises: CheckpointError for other checkpoints than the recipe names; RecipeError if the recipe
    cannot have offline teachers.
    """
    if recipe.teacher_mode == "offline":
        _check_same(recipe, teachers)
        return recipe
    first, *further = [
        TeacherSpec(
            backbone=one.config.backbone,
            adapter=one.config.adapter,
            sha256=one.config.tensors_sha256,
        )
        for one in teachers
    ]
    fields = dict(recipe) | {
        "pair": _taught_by(recipe.pair, [first, *further]),
        "teacher_adapter": first.adapter,
        "teacher_mode": "offline",
        "teacher_sha256": first.sha256,
        "further_teachers": tuple(further) or None,
    }
    if recipe.pair.teacher is None:
        fields["distillation"] = TermSpec(name=DEFAULT_TERM)
    return check_recipe(fields, where="--teacher-from")


def _taught_by(pair: Pair, teachers: Sequence[TeacherSpec]) -> Pair:
    """The pair with the first of the teachers; it is renamed if the backbone is another one."""
    backbones = [one.backbone for one in teachers]
    if all(one == pair.teacher for one in backbones):
        return pair
    names = {one.name for one in backbones}
    teacher = SEVERAL if len(names) > 1 else backbones[0].name
    return pair.model_copy(
        update={"name": f"{teacher}_to_{pair.student.name}", "teacher": backbones[0]}
    )


def check_offline_teachers(recipe: Recipe, teachers: Sequence[Opened]) -> None:
    """Check that the checkpoints are those that an offline recipe names, and of its task.

    Raises: CheckpointError.
    """
    expected = [f"{one.sha256[:12]}…" for one in recipe.offline_teachers]
    if not expected:
        return
    if not teachers:
        several = len(expected) > 1
        raise CheckpointError(
            f"the recipe's offline teacher{'s are' if several else ' is'} the checkpoint"
            f"{'s' * several} with SHA-256 {' and '.join(expected)}, and none is given.",
            hint="--teacher-from REF (in Python teacher_from=REF) says where it is.",
        )
    _check_same(recipe, teachers)
    own = recipe.task
    for teacher in teachers:
        other = teacher.config.recipe.task
        if (own.id, own.num_classes) != (other.id, other.num_classes):
            raise CheckpointError(
                f"the teacher '{teacher}' was trained on task '{other.id}' ({other.num_classes} "
                f"classes); this run's task is '{own.id}' ({own.num_classes} classes)."
            )


def _check_same(recipe: Recipe, teachers: Sequence[Opened]) -> None:
    """Check that the checkpoints are those of the recipe, each given. Raises: CheckpointError."""
    expected = [one.sha256 for one in recipe.offline_teachers]
    for teacher in teachers:
        found = teacher.config.tensors_sha256
        if found not in expected:
            one_of = "one of those" if len(expected) > 1 else "the one"
            digests = " or ".join(f"{digest[:12]}…" for digest in expected)
            raise CheckpointError(
                f"the teacher '{teacher}' is not {one_of} of the recipe: expected an "
                f"adapter_model.safetensors with SHA-256 {digests}, this one has {found[:12]}….",
                hint="It was trained again, or --teacher-from names another checkpoint.",
            )
    given = {teacher.config.tensors_sha256 for teacher in teachers}
    missing = [f"{digest[:12]}…" for digest in expected if digest not in given]
    if missing:
        raise CheckpointError(
            f"the recipe has {len(expected)} offline teachers, and the checkpoint with SHA-256 "
            f"{' and '.join(missing)} is not given.",
            hint="--teacher-from REF, once for each teacher, says where they are.",
        )


def in_order(recipe: Recipe, teachers: Sequence[Opened]) -> list[Opened]:
    """The recipe's offline teachers among checkpoints, in the order of the recipe."""
    by_digest = {one.config.tensors_sha256: one for one in teachers}
    return [by_digest[one.sha256] for one in recipe.offline_teachers]


def offline_logits(
    teachers: Sequence[tuple[Opened, Images]], *, backbones: Backbones
) -> Float32[Tensor, "N K"]:
    """The teachers' common float32 logits `[N, K]` of the same images, on the CPU.

    Each teacher has the images at its own input size. Those of a single teacher are the raw outputs
    of its network; of several, the log of the mean of their softmaxes.

    Raises: what `load_checkpoint` raises; DivergedError for logits that are not finite.
    """
    found = []
    for teacher, images in teachers:
        backbone = backbones.load(teacher.config.backbone, "float32")
        network = load_checkpoint(teacher, backbone=backbone).network.to(backbones.device)
        with torch.no_grad():
            found.append(predict_logits(network, images, device=backbones.device))
    return found[0] if len(found) == 1 else log_mean_softmax(found)
