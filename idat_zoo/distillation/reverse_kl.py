"""Reverse Kullback-Leibler divergence."""

from typing import TYPE_CHECKING

from idat_zoo.distillation.base import Output, Outputs, Term
from idat_zoo.distillation.softened import Temperature, kl_divergence

if TYPE_CHECKING:
    from torch import Tensor


class ReverseKullbackLeibler(Term):
    """T^2 KL(student || teacher), mean over the batch.

    The student concentrates on what the teacher holds for likely, where `kl` makes it cover all of
    it: MiniLLM, Gu et al., arXiv:2306.08543, equation 1 (for language models, T = 1).
    """

    name, title, paper, year = "reverse_kl", "Reverse Kullback-Leibler", "2306.08543", 2023
    Options = Temperature
    options: Temperature
    reads = frozenset({Output.LOGITS})

    def loss(self, student: Outputs, teacher: Outputs, targets: "Tensor") -> "Tensor":
        """[B, K] and [B, K] to a scalar."""
        temperature = self.options.temperature
        return temperature**2 * kl_divergence(student.logits, teacher.logits, temperature)
