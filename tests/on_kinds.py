"""Networks on a form of each kind of backbone, and their comparison, in float64."""

from functools import cache

import torch
from kinds import FORMS, frozen_of
from torch import Tensor

from idat_zoo.adapters.base import Adapter
from idat_zoo.backbones.build import new_head
from idat_zoo.backbones.frozen import FrozenBackbone
from idat_zoo.backbones.mixed import MixedNetwork
from idat_zoo.backbones.network import Network
from idat_zoo.backbones.stack import StackedNetwork
from idat_zoo.randomness import generator

TOLERANCE = 1e-12


@cache
def known(form: str) -> FrozenBackbone:
    """A form that no test changes."""
    return frozen_of(form)


def on(backbone: FrozenBackbone, adapter: Adapter, *, seed: int = 0, noise: float = 0.0) -> Network:
    """A float64 network of 5 classes, its adapter's tensors moved by some noise."""
    created = adapter.create(backbone.anatomy, generator(seed, "test", "adapter"))
    head = new_head(backbone.anatomy.num_features, 5, generator(seed, "test", "head"))
    middle = (0.5, 0.5, 0.5)
    network = Network(backbone, adapter, created, head, mean=middle, std=middle).double()
    for name, tensor in network.trainable().items():
        tensor.data += noise * torch.randn(tensor.shape, generator=generator(seed, "test", name))
    return network


def plain(form: str, images: Tensor) -> Tensor:
    """timm's own features."""
    with torch.no_grad():
        found: Tensor = known(form).body(images)
    return found


def difference(found: Tensor, expected: Tensor) -> float:
    """Of the largest."""
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max()).item()


def assert_together_as_alone(form: str, networks: list[Network]) -> None:
    """In one pass as a stack, and in one as a mixed batch."""
    size = FORMS[form].img_size
    pictures = [
        torch.randint(0, 256, (2, 3, size, size), generator=generator(seed, "test", "pictures"))
        for seed in range(len(networks))
    ]
    images = [own.to(torch.uint8) for own in pictures]
    for together in (StackedNetwork(networks)(images), MixedNetwork(networks)(images)):
        for found, network, own in zip(together, networks, images, strict=True):
            assert difference(found, network(own)) < TOLERANCE


OF_EACH_KIND = [
    "vit",
    "res-post-norm",
    "eva02 tiny",
    "eva post-norm",
    "dinov3",
    "beit",
    "swin",
    "swinv2",
    "convnext",
]
