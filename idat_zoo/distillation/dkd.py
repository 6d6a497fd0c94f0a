"""Decoupled knowledge distillation."""

from typing import TYPE_CHECKING

from pydantic import Field

from idat_zoo.distillation.base import Output, Outputs, Term
from idat_zoo.distillation.softened import Temperature, kl_divergence
from idat_zoo.values import Number

if TYPE_CHECKING:
    from torch import Tensor


class DecoupledOptions(Temperature):
    """Options of decoupled distillation."""

    temperature: Number = Field(default=4.0, gt=0, description="divides the logits, T")
    alpha: Number = Field(default=1.0, ge=0, description="factor on the target's part")
    beta: Number = Field(default=8.0, ge=0, description="factor on the other classes' part")


class Decoupled(Term):
    """T^2 (alpha TCKD + beta NCKD): the true class apart from the others.

    Zhao et al., arXiv:2203.08679, equation 7. TCKD is the divergence between the probabilities of
    the true class and of all others together, NCKD that between the predictions over the other
    classes alone. With 2 classes NCKD is zero.
    """

    name, title, paper, year = "dkd", "Decoupled distillation", "2203.08679", 2022
    Options = DecoupledOptions
    options: DecoupledOptions
    reads = frozenset({Output.LOGITS})
    least_classes = 3

    def loss(self, student: Outputs, teacher: Outputs, targets: "Tensor") -> "Tensor":
        """[B, K] and [B, K] to a scalar, with classes [B]."""
        options = self.options
        own, own_others = _parted(student.logits / options.temperature, targets)
        other, other_others = _parted(teacher.logits / options.temperature, targets)
        of_target = kl_divergence(other, own)
        of_others = kl_divergence(other_others, own_others)
        return options.temperature**2 * (options.alpha * of_target + options.beta * of_others)


def _parted(logits: "Tensor", targets: "Tensor") -> tuple["Tensor", "Tensor"]:
    """The logits `[B, 2]` of the true class and of all others together, and `[B, K-1]` of those."""
    import torch

    classes = logits.shape[-1]
    steps = torch.arange(1, classes, device=logits.device)
    others = logits.gather(1, (targets[:, None] + steps) % classes)
    together = others.logsumexp(dim=1, keepdim=True)
    return torch.cat([logits.gather(1, targets[:, None]), together], dim=1), others
