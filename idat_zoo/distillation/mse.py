"""Mean squared error between logits: iDAT's term."""

from typing import TYPE_CHECKING

from idat_zoo.distillation.base import Output, Outputs, Term

if TYPE_CHECKING:
    from torch import Tensor


class MeanSquaredError(Term):
    """Mean over batch and classes of the squared difference of the logits.

    iDAT, arXiv:2403.15750, as released. The logits are not centred, so a shift common to all
    classes, which softmax ignores, is penalised too.
    """

    name, title, paper, year = "mse", "Mean squared error of the logits", "2403.15750", 2024
    reads = frozenset({Output.LOGITS})

    def loss(self, student: Outputs, teacher: Outputs, targets: "Tensor") -> "Tensor":
        """[B, K] and [B, K] to a scalar."""
        from torch.nn.functional import mse_loss

        return mse_loss(student.logits, teacher.logits)
