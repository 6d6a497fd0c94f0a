"""Both networks learn from their mean."""

from typing import TYPE_CHECKING

from idat_zoo.distillation.base import Output, Outputs, Term
from idat_zoo.distillation.softened import Temperature, kl_divergence

if TYPE_CHECKING:
    from torch import Tensor


class Ensemble(Term):
    """T^2 (KL(mean || student) + KL(mean || teacher)), the mean being that of their logits.

    As in ONE, Lan et al., arXiv:1806.04606, equation 5, whose mean is weighted by a learned gate;
    here it is plain. The mean is a constant, so each network learns from both.
    """

    name, title, paper, year = "ensemble", "The mean of both as the target", "1806.04606", 2018
    Options = Temperature
    options: Temperature
    reads = frozenset({Output.LOGITS})

    def loss(self, student: Outputs, teacher: Outputs, targets: "Tensor") -> "Tensor":
        """[B, K] and [B, K] to a scalar."""
        temperature = self.options.temperature
        mean = (student.logits + teacher.logits).detach() / 2
        both = [kl_divergence(mean, own.logits, temperature) for own in (student, teacher)]
        return temperature**2 * (both[0] + both[1])
