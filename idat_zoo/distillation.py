"""Distillation terms: pure functions of two logit tensors.

Shape letters: B batch, K classes.

iDAT, arXiv:2403.15750, adds one such term between student and teacher logits. As released neither
side is detached, so both networks are pulled towards each other; `detach` makes one side constant.
The two released terms differ in strength: at T = 5, for small differences, `kl` is about 1/50 of
`mse`.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from idat_zoo.recipe import Recipe

Logits = Float[Tensor, "B K"]
Scalar = Float[Tensor, ""]


def distill_mse(student: Logits, teacher: Logits) -> Scalar:
    """Mean over batch and classes of the squared difference of the logits.

    iDAT, released. No centring: a shift common to all classes, which softmax ignores, costs too.
    """
    return F.mse_loss(student, teacher)


def distill_kl(
    student: Logits, teacher: Logits, *, temperature: float, temperature_squared: bool
) -> Scalar:
    """KL(teacher || student) at a temperature, mean over the batch.

    iDAT as released: T = 5 and no T^2 factor. `temperature_squared` multiplies by T^2, as in
    Hinton et al., arXiv:1503.02531, which keeps gradients of one size over T.
    """
    term = F.kl_div(
        F.log_softmax(student / temperature, dim=-1),
        F.log_softmax(teacher / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    return term * temperature**2 if temperature_squared else term


def distillation_term(student: Logits, teacher: Logits, recipe: Recipe) -> Scalar:
    """The recipe's term D, without its weight. Not for `distillation = none`, which has none."""
    if recipe.detach == "teacher":
        teacher = teacher.detach()
    elif recipe.detach == "student":
        student = student.detach()
    if recipe.distillation == "mse":
        return distill_mse(student, teacher)
    assert recipe.distillation == "kl", recipe.distillation
    return distill_kl(
        student,
        teacher,
        temperature=recipe.temperature,
        temperature_squared=recipe.temperature_squared,
    )
