"""Families that add no module."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.func import functional_call

from families import Facts, Form, Size, through_blocks
from idat_zoo.adapters.anatomy import Anatomy


def of_its_own(model: nn.Module, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """timm's network with its parameters as leaves."""
    logits: Tensor = functional_call(
        model, {name.removeprefix("body."): tensor for name, tensor in tensors.items()}, (images,)
    )
    return logits


def of_the_backbone(s: Size) -> int:
    """Patches, class token, positions of 14 x 14 patches; blocks; the last norm."""
    embed = 3 * s.P**2 * s.D + s.D + s.D + (14**2 + 1) * s.D
    block = 4 * s.D * (s.D + 1) + 2 * s.D * s.H + s.H + s.D + 4 * s.D
    return embed + s.L * block + 2 * s.D


def as_pretrained(name: str, tensor: Tensor, anatomy: Anatomy) -> bool:
    own = {n: t for i in range(-1, anatomy.depth + 1) for n, t in anatomy.parameters(i).items()}
    return tensor.equal(own[name.removeprefix("body.")].float())


FACTS = {
    "linear": Facts(
        forms=(
            Form(
                reference=lambda model, tensors, images: through_blocks(model, images, tensors),
                why="there is nothing but the head",
            ),
        ),
        count=lambda s: 0,
        unpublished="0 needs no source",
        initial={},
        identity=True,
        dropout={"dropout": 0.5},
        unlike=({"dropout": 0.1}, {"dropout": 0.2}),
        alike="it has no rank",
        outside="there is nothing in a block",
    ),
    "full": Facts(
        forms=(Form(reference=of_its_own, why="it is the network itself"),),
        count=of_the_backbone,
        unpublished="timm's own networks have so many",
        initial={"body.*": as_pretrained},
        identity=True,
        alone="a stack shares one backbone",
    ),
}
