"""Softened predictions, and their Kullback-Leibler divergence."""

from typing import TYPE_CHECKING

from pydantic import Field

from idat_zoo.values import Frozen, Number

if TYPE_CHECKING:
    from torch import Tensor


class Temperature(Frozen):
    """The option of terms that soften predictions, with their usual temperature of 1."""

    temperature: Number = Field(default=1.0, gt=0, description="divides the logits, T")


def kl_divergence(of: "Tensor", by: "Tensor", temperature: float = 1.0) -> "Tensor":
    """KL(softmax(of / T) || softmax(by / T)) of logits `[B, K]`: a mean over the batch."""
    from torch.nn.functional import kl_div, log_softmax

    return kl_div(
        log_softmax(by / temperature, dim=-1),
        log_softmax(of / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
