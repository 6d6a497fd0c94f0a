"""Learning rates, written out as one number per optimisation step."""

import math

from idat_zoo.recipe import Recipe

COOLDOWN_EPOCHS = 10  # timm's default, which the released command line leaves on


def total_epochs(recipe: Recipe) -> int:
    """The number of epochs to train: the recipe's, plus ten of cool-down for `protocol = paper`."""
    return recipe.epochs + (COOLDOWN_EPOCHS if recipe.protocol == "paper" else 0)


def learning_rates(recipe: Recipe, steps_per_epoch: int) -> list[float]:
    """The learning rate of every optimisation step of a run, in order."""
    if recipe.protocol == "paper":
        return [lr for lr in paper_epoch_rates(recipe) for _ in range(steps_per_epoch)]
    return standard_rates(
        recipe.lr,
        warmup=recipe.warmup_epochs * steps_per_epoch,
        total=recipe.epochs * steps_per_epoch,
    )


def standard_rates(lr: float, *, warmup: int, total: int) -> list[float]:
    """Linear from lr/100 to lr over `warmup` steps, then cosine to lr/1000 at the last step.

    No step has a rate near zero, unlike in the released schedule.
    """
    rising = [lr * (0.01 + 0.99 * step / warmup) for step in range(warmup)]
    falling = total - warmup
    low = lr / 1000
    return rising + [
        low + 0.5 * (lr - low) * (1 + math.cos(math.pi * step / max(falling - 1, 1)))
        for step in range(falling)
    ]


def paper_epoch_rates(recipe: Recipe) -> list[float]:
    """The schedule of the released code: one rate per epoch, from 1e-7, ten last epochs at 1e-8.

    It is `CosineLRScheduler(t_initial=epochs, lr_min=1e-8, warmup_lr_init=1e-7)` of timm 0.6.13,
    stepped per epoch. Without `warmup_prefix` the warm-up replaces the start of the cosine, so the
    peak is below the recipe's lr.
    """
    first, low = 1e-7, 1e-8
    rates = []
    for epoch in range(total_epochs(recipe)):
        if epoch < recipe.warmup_epochs:
            rates.append(first + epoch * (recipe.lr - first) / recipe.warmup_epochs)
        elif epoch < recipe.epochs:
            half = 0.5 * (recipe.lr - low)
            rates.append(low + half * (1 + math.cos(math.pi * epoch / recipe.epochs)))
        else:
            rates.append(low)
    return rates
