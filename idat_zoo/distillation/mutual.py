"""Deep mutual learning."""

from typing import TYPE_CHECKING

from idat_zoo.distillation.base import Output, Outputs, Term
from idat_zoo.distillation.softened import Temperature, kl_divergence

if TYPE_CHECKING:
    from torch import Tensor


class Mutual(Term):
    """KL(teacher || student) for the student, and KL(student || teacher) for the teacher.

    Deep mutual learning, Zhang et al., arXiv:1706.00384, equations 5 to 7: each network takes the
    other's predictions as they are, so the first part moves the student alone and the second the
    teacher alone. T = 1 there.
    """

    name, title, paper, year = "mutual", "Deep mutual learning", "1706.00384", 2018
    Options = Temperature
    options: Temperature
    reads = frozenset({Output.LOGITS})

    def loss(self, student: Outputs, teacher: Outputs, targets: "Tensor") -> "Tensor":
        """[B, K] and [B, K] to a scalar."""
        temperature = self.options.temperature
        for_student = kl_divergence(teacher.logits.detach(), student.logits, temperature)
        return for_student + kl_divergence(student.logits.detach(), teacher.logits, temperature)
