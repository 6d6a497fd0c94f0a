"""Students with every trained tensor away from its start, and their checkpoints."""

from collections.abc import Sequence
from pathlib import Path

import torch
from families import facts_of
from kinds import frozen_of

from conftest import toy_pair, toy_recipe
from idat_zoo.adapters import build_adapter
from idat_zoo.backbones.build import build_network
from idat_zoo.backbones.network import Network
from idat_zoo.checkpoint.loading import Checkpoint
from idat_zoo.checkpoint.opened import open_checkpoint
from idat_zoo.checkpoint.writing import write_checkpoint
from idat_zoo.randomness import generator
from idat_zoo.recipe import Pair
from idat_zoo.specs import AdapterSpec


def shaken(family: str, **options: object) -> Network:
    """A student with every trained tensor away from its start."""
    network = toy_pair(toy_recipe(family, options={**facts_of(family).small, **options})).student
    with torch.no_grad():
        for name, parameter in network.trainable().items():
            parameter.normal_(std=0.3, generator=generator(2, "test", name))
    return network


def network_on(form: str, family: str, **options: object) -> Network:
    """A student on a form of a backbone, every tensor of which is random, in float64."""
    network = build_network(
        frozen_of(form),
        build_adapter(AdapterSpec(name=family, options=options)),
        num_classes=10,
        normalisation="model",
        seed=0,
        role="student",
    ).double()
    with torch.no_grad():
        for name, parameter in network.trainable().items():
            parameter.normal_(std=0.3, generator=generator(2, "test", name))
    return network.eval()


def checkpoint_of(network: Network, folder: Path) -> Checkpoint:
    """The same in float32, with what `write_checkpoint` says of it."""
    network, adapter = network.float(), network.adapter
    recipe = toy_recipe(adapter.name, options=adapter.options.model_dump(), teacher=False)
    recipe = recipe.model_copy(update={"pair": Pair(name="toy", student=network.backbone.spec)})
    write_checkpoint(folder, network, recipe, role="student", recipe_hash="0" * 64, seed=0)
    return Checkpoint(network=network, config=open_checkpoint(folder).config)


def each(*forms: str, families: Sequence[str]) -> list[tuple[str, str]]:
    """Each form with each family."""
    return [(form, family) for form in forms for family in families]


CONVOLUTIONS = ("convnext", "convnext 1x1", "convnext v2")
