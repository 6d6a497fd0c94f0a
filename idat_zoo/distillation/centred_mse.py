"""Mean squared error between logits without their mean."""

from typing import TYPE_CHECKING

from idat_zoo.distillation.base import Output, Outputs, Term

if TYPE_CHECKING:
    from torch import Tensor


class CentredMeanSquaredError(Term):
    """`mse` of logits from which each image's mean over the classes is taken.

    Softmax ignores a shift that is common to all classes, and this term does too. It is what
    temperature-scaled distillation becomes at a high temperature: Hinton et al., arXiv:1503.02531,
    section 2.1.
    """

    name, title, paper, year = (
        "centred_mse",
        "Mean squared error of centred logits",
        "1503.02531",
        2015,
    )
    reads = frozenset({Output.LOGITS})

    def loss(self, student: Outputs, teacher: Outputs, targets: "Tensor") -> "Tensor":
        """[B, K] and [B, K] to a scalar."""
        from torch.nn.functional import mse_loss

        own, other = (z - z.mean(dim=-1, keepdim=True) for z in (student.logits, teacher.logits))
        return mse_loss(own, other)
