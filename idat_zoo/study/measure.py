"""The measurement of one training step, on noise and random weights, so that nothing is needed."""

from statistics import median
from typing import Any

import torch

from idat_zoo.backbones.pair import Backbones, build_pair
from idat_zoo.engine.learner import Learner
from idat_zoo.engine.precision import computing, resolve_precision
from idat_zoo.engine.timing import seconds
from idat_zoo.engine.train import Trainer
from idat_zoo.recipe import Recipe
from idat_zoo.switches import Switches

STEPS = 3
"""The number of steps that are timed, after one that is not; their median counts."""


def seconds_per_image(recipe: Recipe, device: torch.device, switches: Switches) -> float:
    """The time in seconds that a training step of a recipe takes on a device, per image.

    The backbones have random weights and the images are noise, neither of which changes the time.
    Raises: DeviceError or another ZooError where the step cannot be computed.
    """
    fields: dict[str, Any] = {"teacher": None}
    backbones = {
        spec.name: spec.model_copy(update={"weights": "random"}) for spec in recipe.pair.backbones()
    }
    fields["student"] = backbones[recipe.pair.student.name]
    if recipe.pair.teacher is not None:
        fields["teacher"] = backbones[recipe.pair.teacher.name]
    recipe = resolve_precision(recipe, device)
    recipe = recipe.model_copy(update={"pair": recipe.pair.model_copy(update=fields)})
    with computing(switches, device):
        pair = build_pair(recipe, seed=0, backbones=Backbones(device))
        count = recipe.batch_size
        images = {}
        for role, network in pair.roles():
            spec = recipe.pair.student if role == "student" else fields["teacher"]
            shape = (count, 3, spec.img_size, spec.img_size)
            images[role] = torch.randint(256, shape, dtype=torch.uint8).to(network.mean.device)
        targets = (torch.arange(count) % recipe.task.num_classes).to(device)
        trainer = Trainer([Learner(pair, images, targets, recipe, seed=0)], switches=switches)
        times = [
            seconds(lambda epoch=epoch: trainer.train_epoch(epoch), device)  # type: ignore[misc]
            for epoch in range(min(1 + STEPS, trainer.epochs))
        ]
    return median(times[1:] or times) / count
