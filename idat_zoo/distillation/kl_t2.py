"""Kullback-Leibler divergence with the factor T^2: Hinton's term."""

from typing import TYPE_CHECKING

from pydantic import Field

from idat_zoo.distillation.base import Output, Outputs, Term
from idat_zoo.distillation.softened import Temperature, kl_divergence
from idat_zoo.values import Number

if TYPE_CHECKING:
    from torch import Tensor


class HintonOptions(Temperature):
    """Options of Hinton's term."""

    temperature: Number = Field(default=4.0, gt=0, description="divides the logits, T")


class Hinton(Term):
    """T^2 KL(teacher || student) at a temperature T, mean over the batch.

    Hinton et al., arXiv:1503.02531: the factor keeps gradients of one size when T changes. There
    the teacher is fixed, here it learns too, unless `detach = "teacher"`.
    """

    name, title, paper, year = "kl_t2", "Kullback-Leibler divergence times T^2", "1503.02531", 2015
    Options = HintonOptions
    options: HintonOptions
    reads = frozenset({Output.LOGITS})

    def loss(self, student: Outputs, teacher: Outputs, targets: "Tensor") -> "Tensor":
        """[B, K] and [B, K] to a scalar."""
        temperature = self.options.temperature
        return temperature**2 * kl_divergence(teacher.logits, student.logits, temperature)
