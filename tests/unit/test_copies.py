"""Trained copies on every kind: they act as timm's own parameters with their values.

In float64, within 1e-12.
"""

from collections.abc import Iterator

import pytest
import torch
from kinds import FORMS, frozen_of, images_of, tiny
from on_kinds import OF_EACH_KIND, TOLERANCE, assert_together_as_alone, difference, known, on, plain
from torch import Tensor, nn
from torch.func import functional_call
from toy_families import Copied

from idat_zoo.adapters import build_adapter
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Tensors
from idat_zoo.backbones.frozen import FrozenBackbone, load_backbone
from idat_zoo.backbones.kinds.base import ROLES, Kind
from idat_zoo.engine.precision import cast_frozen
from idat_zoo.randomness import generator
from idat_zoo.specs import AdapterSpec


def modules_at(kind: Kind) -> Iterator[tuple[str, str, nn.Module]]:
    """(where and site, timm's name, the module) of all that may be copied."""
    names = {id(module): name for name, module in kind.body.named_modules()}
    for i, block in enumerate(kind.blocks):
        for own, module in block.named_modules():
            if own in ROLES:
                yield f"blocks.{i}.{ROLES[own]}", names[id(module)], module
            elif own in ("norm1", "norm2", "norm"):
                site = {"norm1": Site.NORM1}.get(own, Site.NORM2)
                yield f"blocks.{i}.{site}", names[id(module)], module
    yield "embed.patch_embed", names[id(kind.patch_projection)], kind.patch_projection
    if hasattr(kind.final_norm, "weight"):
        yield "pool.final_norm", names[id(kind.final_norm)], kind.final_norm


def timms_names(kind: Kind, copies: Tensors) -> dict[str, Tensor]:
    """Copies by the names that timm has for what they are of; q, k and v share one of the bias."""
    found, tensors = {}, dict(kind.body.named_parameters()) | dict(kind.body.named_buffers())
    for place, name, _ in modules_at(kind):
        for part in ("weight", "bias"):
            if f"{place}.{part}" not in copies:
                continue
            copy = copies[f"{place}.{part}"]
            if f"{name}.{part}" in tensors:
                found[f"{name}.{part}"] = copy
            else:
                above = name.removesuffix(".qkv")
                for letter, third in zip("qkv", copy.chunk(3), strict=True):
                    found[f"{above}.{letter}_bias"] = third
    assert len(found) >= len(copies)
    return found


@pytest.mark.parametrize("form", [*OF_EACH_KIND, "siglip", "dinov3 plus", "pe spatial"])
def test_what_is_said_to_be_frozen_has_the_values_of_the_backbone(form: str) -> None:
    loaded = load_backbone(tiny(form))
    network = on(FrozenBackbone(**vars(loaded)), Copied())
    tensors = dict(loaded.body.named_parameters()) | dict(loaded.body.named_buffers())
    copies = {
        name.removeprefix("adapter."): tensor
        for name, tensor in network.trainable().items()
        if name.startswith("adapter.")
    }
    named = timms_names(loaded.kind, copies)
    assert all(tensor.equal(tensors[name].double()) for name, tensor in named.items())
    expected = {
        f"{place}.{part}"
        for place, _, module in modules_at(loaded.kind)
        for part, _ in module.named_parameters()
    }
    assert expected <= copies.keys()


@pytest.mark.parametrize("form", FORMS)
def test_a_network_of_copies_is_timms_own_with_their_values(form: str) -> None:
    images = images_of(form, 2)
    network = on(known(form), Copied())
    # not to the bit: products of matrices depend on where in memory their weights lie
    assert difference(network.features(images), plain(form, images)) < TOLERANCE
    for name, tensor in network.trainable().items():
        tensor.data += 0.1 * torch.randn(tensor.shape, generator=generator(0, "test", name))
    named = timms_names(network.kind, network.adapter_tensors.tensors())
    expected = functional_call(network.body, named, (images,))
    assert difference(expected, plain(form, images)) > 1e-3
    assert difference(network.features(images), expected) < TOLERANCE
    network(images).square().sum().backward()
    dead = [n for n, p in network.trainable().items() if p.grad is None or not p.grad.any()]
    assert not dead
    assert all(p.grad is None for p in network.body.parameters())


@pytest.mark.parametrize("tensors", [("bias",), ("weight", "bias")])
@pytest.mark.parametrize("form", OF_EACH_KIND)
def test_copies_of_two_tasks_stack(form: str, tensors: tuple[str, ...]) -> None:
    networks = [on(known(form), Copied(tensors=tensors), seed=seed, noise=0.1) for seed in (0, 1)]
    assert_together_as_alone(form, networks)


def test_a_backbone_that_is_copied_from_is_not_cast() -> None:
    networks = [
        on(frozen_of("vit"), adapter)
        for adapter in (Copied(), build_adapter(AdapterSpec(name="lora")))
    ]
    for network in networks:
        cast_frozen(network.float(), "bf16")
    copied, lora = (network.body.blocks[0].attn.qkv.weight.dtype for network in networks)
    assert (copied, lora) == (torch.float32, torch.bfloat16)
