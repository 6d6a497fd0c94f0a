"""Symmetric Kullback-Leibler divergence."""

from typing import TYPE_CHECKING

from pydantic import Field

from idat_zoo.distillation.base import Output, Outputs, Term
from idat_zoo.distillation.softened import Temperature, kl_divergence
from idat_zoo.values import Number

if TYPE_CHECKING:
    from torch import Tensor


class SymmetricOptions(Temperature):
    """Options of the symmetric term."""

    temperature: Number = Field(default=3.0, gt=0, description="divides the logits, T")


class SymmetricKullbackLeibler(Term):
    """KL(teacher || student) + KL(student || teacher); both sides learn by both.

    GIST, arXiv:2312.07255, takes 0.75 of this sum at T = 3: `distillation_weight=0.75`.
    """

    name, title, paper, year = "symmetric_kl", "Symmetric Kullback-Leibler", "2312.07255", 2023
    Options = SymmetricOptions
    options: SymmetricOptions
    reads = frozenset({Output.LOGITS})

    def loss(self, student: Outputs, teacher: Outputs, targets: "Tensor") -> "Tensor":
        """[B, K] and [B, K] to a scalar."""
        temperature = self.options.temperature
        forth = kl_divergence(teacher.logits, student.logits, temperature)
        return forth + kl_divergence(student.logits, teacher.logits, temperature)
