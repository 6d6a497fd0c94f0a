"""Distillation by relations instead of values."""

from typing import TYPE_CHECKING

from pydantic import Field

from idat_zoo.distillation.base import Output, Outputs, Term
from idat_zoo.distillation.softened import Temperature
from idat_zoo.values import Number

if TYPE_CHECKING:
    from torch import Tensor


class RelationOptions(Temperature):
    """Options of distillation by relations."""

    beta: Number = Field(default=1.0, ge=0, description="factor on the relations between classes")
    gamma: Number = Field(default=1.0, ge=0, description="factor on the relations between images")


class Relations(Term):
    """T^2 (beta (1 - r between classes) + gamma (1 - r between images)), r Pearson's correlation.

    Huang et al., arXiv:2205.10536, equations 8 to 10. The correlations are those of the two
    networks' predictions: over the classes of each image, and over the batch for each class. With
    2 classes the first is always 1 or -1, and has no gradient.
    """

    name, title, paper, year = "dist", "Correlations of predictions", "2205.10536", 2022
    Options = RelationOptions
    options: RelationOptions
    reads = frozenset({Output.LOGITS})
    least_classes = 3

    def loss(self, student: Outputs, teacher: Outputs, targets: "Tensor") -> "Tensor":
        """[B, K] and [B, K] to a scalar."""
        options = self.options
        own, other = (
            (outputs.logits / options.temperature).softmax(dim=-1) for outputs in (student, teacher)
        )
        between_classes = 1 - _correlation(own, other).mean()
        between_images = 1 - _correlation(own.mT, other.mT).mean()
        terms = options.beta * between_classes + options.gamma * between_images
        return options.temperature**2 * terms


def _correlation(x: "Tensor", y: "Tensor") -> "Tensor":
    """Pearson's correlation of each row."""
    from torch.nn.functional import cosine_similarity

    return cosine_similarity(
        x - x.mean(dim=-1, keepdim=True), y - y.mean(dim=-1, keepdim=True), dim=-1
    )
