"""The task losses of a batch: cross-entropies of student and teacher with the true classes.

Shape letters: B batch, N images, K classes.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64
from torch import Tensor

from idat_zoo.backbones.pair import Role
from idat_zoo.recipe import Recipe


class TaskLosses:
    """The task losses of one run, as its recipe's `task_loss` and `class_weights` say.

    `targets` are the classes of all images that it is trained on, from which weights are counted.
    """

    def __init__(self, recipe: Recipe, targets: Int64[Tensor, "N"]) -> None:
        self.joint = recipe.task_loss == "joint"
        self.weights: Tensor | None = None
        if recipe.class_weights == "balanced":
            self.weights = balanced_weights(targets.cpu(), recipe.task.num_classes).to(
                targets.device
            )

    def __call__(
        self, logits: Mapping[Role, Tensor], targets: Int64[Tensor, "B"]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to be minimised, and all losses by the names of `EpochLog`, for logits `[B, K]`.

        Together they are the sum of the networks' own losses or, jointly, the loss of the sum of
        their logits.
        """
        parts = {f"{role}_task_loss": self._one(own, targets) for role, own in logits.items()}
        if not self.joint:
            return sum(parts.values(), start=torch.zeros((), device=targets.device)), parts
        joint = self._one(logits["student"] + logits["teacher"], targets)
        return joint, parts | {"joint_task_loss": joint}

    def _one(self, logits: Tensor, targets: Tensor) -> Tensor:
        weights = None if self.weights is None else self.weights.to(logits.dtype)
        return F.cross_entropy(logits, targets, weight=weights)


def balanced_weights(targets: Int64[Tensor, "N"], classes: int) -> Float32[Tensor, "K"]:
    """The weight of each class, N / (K n) for n of the N images; 0 for a class without images."""
    counts = torch.bincount(targets, minlength=classes).double()
    weights = len(targets) / (classes * counts)
    return weights.where(counts > 0, torch.zeros_like(weights)).float()
