"""Kullback-Leibler divergence between softened predictions."""

from typing import TYPE_CHECKING

from pydantic import Field

from idat_zoo.distillation.base import Output, Outputs, Term
from idat_zoo.distillation.softened import kl_divergence
from idat_zoo.values import Frozen, Number

if TYPE_CHECKING:
    from torch import Tensor


class KullbackLeiblerOptions(Frozen):
    """Options of the Kullback-Leibler term."""

    temperature: Number = Field(default=5.0, gt=0, description="divides the logits, T")
    temperature_squared: bool = Field(
        default=False, description="multiply by T^2, which keeps gradients of one size over T"
    )


class KullbackLeibler(Term):
    """KL(teacher || student) at a temperature T, mean over the batch.

    iDAT, arXiv:2403.15750, as released: T = 5 and no factor of T^2. `temperature_squared`
    multiplies by T^2, as in Hinton et al., arXiv:1503.02531. At T = 5 and for small differences the
    term is about 1/50 of `mse`.
    """

    name, title, paper, year = "kl", "Kullback-Leibler divergence", "2403.15750", 2024
    Options = KullbackLeiblerOptions
    options: KullbackLeiblerOptions
    reads = frozenset({Output.LOGITS})

    def loss(self, student: Outputs, teacher: Outputs, targets: "Tensor") -> "Tensor":
        """[B, K] and [B, K] to a scalar."""
        temperature = self.options.temperature
        term = kl_divergence(teacher.logits, student.logits, temperature)
        return term * temperature**2 if self.options.temperature_squared else term
