"""The construction of networks from a frozen backbone, new adapter tensors and a head."""

import torch
from torch import nn

from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.peft import Peft
from idat_zoo.adapters.tensors import trunc_normal
from idat_zoo.backbones.frozen import FrozenBackbone
from idat_zoo.backbones.network import Network
from idat_zoo.errors import UsageError
from idat_zoo.randomness import generator
from idat_zoo.specs import IMAGENET
from idat_zoo.values import Rgb


def new_head(embed_dim: int, num_classes: int, source: torch.Generator) -> nn.Linear:
    """A new linear head: normal weights of std 0.02, zero biases, as in timm and iDAT's code."""
    head = nn.Linear(embed_dim, num_classes, device="meta")  # where nothing is drawn
    head.weight = nn.Parameter(trunc_normal(num_classes, embed_dim, std=0.02, generator=source))
    head.bias = nn.Parameter(torch.zeros(num_classes))
    return head


def build_network(
    backbone: FrozenBackbone,
    adapter: Adapter,
    *,
    num_classes: int,
    normalisation: str,
    seed: int,
    role: str,
) -> Network:
    """A new network, whose tensors are drawn by the key (seed, role): `student` or `teacher`.

    Raises: UsageError if the adapter does not fit the backbone.
    """
    head = new_head(backbone.anatomy.num_features, num_classes, generator(seed, role, "head"))
    return with_head(backbone, adapter, head, normalisation=normalisation, seed=seed, role=role)


def with_head(
    backbone: FrozenBackbone,
    adapter: Adapter,
    head: nn.Module,
    *,
    normalisation: str,
    seed: int,
    role: str,
) -> Network:
    """A new network as by `build_network`, with a given head."""
    check_carries(backbone.anatomy, adapter, backbone.spec.name)
    source = generator(seed, role, "adapter")
    mean, std = input_range(backbone, normalisation)
    if isinstance(adapter, Peft):
        from idat_zoo.backbones.peft_network import PeftNetwork  # few networks need it

        model = adapter.inject(backbone.body, source)
        return PeftNetwork(backbone, adapter, model, head, mean=mean, std=std)
    created = adapter.create(backbone.anatomy, source)
    return Network(backbone, adapter, created, head, mean=mean, std=std)


def check_carries(anatomy: Anatomy, adapter: Adapter, name: str) -> None:
    """Check that an adapter fits a backbone, which messages call `name`. Raises: UsageError."""
    why = adapter.why_not(anatomy)
    if why:
        raise UsageError(
            f"adapter '{adapter.word}' cannot stand on backbone '{name}' ({anatomy.kind}): {why}.",
            hint="Other options may fit; `idat list adapters --pair NAME` lists what stands there "
            "by default.",
        )


def input_range(backbone: FrozenBackbone, normalisation: str) -> tuple[Rgb, Rgb]:
    """Mean and std for pixels in [0, 1] by a recipe's `normalisation`.

    They are the backbone's own for `model`, ImageNet's for `imagenet`, and 0 and 1 for `none`.
    """
    if normalisation == "imagenet":
        return IMAGENET
    if normalisation == "none":
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return backbone.spec.mean, backbone.spec.std
