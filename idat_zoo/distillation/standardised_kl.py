"""Kullback-Leibler divergence of standardised logits."""

from typing import TYPE_CHECKING

from pydantic import Field

from idat_zoo.distillation.base import Output, Outputs, Term
from idat_zoo.distillation.softened import Temperature, kl_divergence
from idat_zoo.values import Number

if TYPE_CHECKING:
    from torch import Tensor


class StandardisedOptions(Temperature):
    """Options of the term on standardised logits."""

    temperature: Number = Field(default=2.0, gt=0, description="divides the logits, T")


class StandardisedKullbackLeibler(Term):
    """T^2 KL(teacher || student) of logits with mean 0 and standard deviation 1 for each image.

    Sun et al., arXiv:2403.01427, algorithm 1; their weight is 9. The student need not reach the
    scale of the teacher's logits. With 2 classes all standardised logits are alike.
    """

    name, title, paper, year = (
        "standardised_kl",
        "Divergence of standardised logits",
        "2403.01427",
        2024,
    )
    Options = StandardisedOptions
    options: StandardisedOptions
    reads = frozenset({Output.LOGITS})
    least_classes = 3

    def loss(self, student: Outputs, teacher: Outputs, targets: "Tensor") -> "Tensor":
        """[B, K] and [B, K] to a scalar."""
        temperature = self.options.temperature
        own, other = (_standardised(outputs.logits) for outputs in (student, teacher))
        return temperature**2 * kl_divergence(other, own, temperature)


def _standardised(logits: "Tensor") -> "Tensor":
    std, mean = logits.std(dim=-1, keepdim=True), logits.mean(dim=-1, keepdim=True)
    return (logits - mean) / (1e-7 + std)  # the authors' constant
