"""The divergence of a training, told from the log of its last epoch."""

import math
from typing import TYPE_CHECKING

from idat_zoo.errors import DivergedError
from idat_zoo.recipe import Recipe

if TYPE_CHECKING:
    from idat_zoo.engine.learner import EpochLog


def divergence(log: "EpochLog", recipe: Recipe) -> DivergedError | None:
    """The error for a run whose student is far worse than guessing after its last epoch, or None.

    Uniform predictions have a task loss of ln K, and so has a network trained on random labels. A
    loss above 2 ln K is confidently wrong, which a merely inaccurate network does not reach. With
    `task_loss = "joint"` it is the loss of both networks together.
    """
    classes = recipe.task.num_classes
    bound = 2 * math.log(classes)
    own, whose = log.student_task_loss, "the student's"
    if log.joint_task_loss is not None:
        own, whose = log.joint_task_loss, "the joint"
    if own <= bound:
        return None
    return DivergedError(
        f"the training diverged: {whose} task loss in its last epoch, {log.epoch}, is "
        f"{own:.6g}, above 2 ln K = {bound:.3g} (K = {classes} classes; guessing "
        "has half of that). No result is written.",
        hint=f"A lower learning rate often helps: {lower_rate(recipe)}. --keep-diverged writes the "
        "result of this training, labelled; nothing is trained again.",
    )


def lower_rate(recipe: Recipe) -> str:
    """A lower learning rate to suggest, as `lr=X`: a tenth, and at most the default."""
    usual = float(Recipe.model_fields["lr"].default)
    return f"lr={min(recipe.lr / 10, usual):g}"
