"""Weak-to-strong learning with confidence."""

from typing import TYPE_CHECKING

from pydantic import Field

from idat_zoo.distillation.base import Output, Outputs, Term
from idat_zoo.values import Frozen

if TYPE_CHECKING:
    from torch import Tensor


class ConfidenceOptions(Frozen):
    """Options of the confidence loss."""

    alpha: float = Field(default=0.5, ge=0, le=1, description="share of the student's own labels")


class WeakToStrong(Term):
    """(1 - alpha) CE(student, teacher) + alpha CE(student, the student's own label).

    Burns et al., arXiv:2312.09390, equation 1, for two classes with a threshold. With more classes
    the student's own label is its most likely class; this form is ours. Neither the teacher nor the
    own label gets a gradient. The paper raises alpha during training: `distillation_warmup_epochs`.
    """

    name, title, paper, year = (
        "weak_to_strong",
        "Weak-to-strong confidence loss",
        "2312.09390",
        2023,
    )
    Options = ConfidenceOptions
    options: ConfidenceOptions
    reads = frozenset({Output.LOGITS})

    def loss(self, student: Outputs, teacher: Outputs, targets: "Tensor") -> "Tensor":
        """[B, K] and [B, K] to a scalar."""
        from torch.nn.functional import cross_entropy

        alpha, own = self.options.alpha, student.logits
        weak = cross_entropy(own, teacher.logits.detach().softmax(dim=-1))
        return (1 - alpha) * weak + alpha * cross_entropy(own, own.detach().argmax(dim=-1))
