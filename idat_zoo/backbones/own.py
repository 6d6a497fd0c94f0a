"""A timm network that the user built, as a frozen backbone and its classifier."""

import copy
import re
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Tensors
from idat_zoo.backbones.anatomy import blank_image, measure
from idat_zoo.backbones.frozen import FrozenBackbone, fuse_attention, titles
from idat_zoo.backbones.kinds import KINDS, kind_of, load_kind
from idat_zoo.backbones.kinds.base import Kind
from idat_zoo.backbones.pinned import UNBUILDABLE, told
from idat_zoo.backbones.self_check import TOLERANCE, relative_difference
from idat_zoo.errors import InputError, UsageError, WalkError
from idat_zoo.outside import KINDS_GROUP, providers
from idat_zoo.recipe import Backbone


def own_backbone(
    model: nn.Module, *, img_size: int | None = None
) -> tuple[FrozenBackbone, nn.Module | None]:
    """The network without its classifier, frozen, and that classifier; None where it has two.

    `model` is not changed. The backbone has modules of its own that share the parameters' memory
    until one of the two is moved or cast. `img_size` is the side of the images where the network
    does not say it, or takes several.

    Raises: InputError for an object that is no module; UsageError for a network of no known kind,
    or one that cannot take such images; WalkError where timm's forward pass differs from the walk.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"adapters stand on one of timm's networks; got {type(model).__name__}.",
            hint='timm.create_model("vit_tiny_patch16_224") makes one',
        )
    name = kind_of(KINDS, type(model)) or kind_of(providers(KINDS_GROUP), type(model))
    if name is None:
        raise _unknown(model, f"it is a {type(model).__name__}")
    spec = _describe(model, img_size)
    body = _sharing(model).eval()
    fuse_attention(body)
    kind = load_kind(name)(body)
    unfit = kind.misfit() or _wrapped(kind) or _of_several_types(body)
    if unfit:
        raise _unknown(model, unfit)
    _try_out(kind, spec)
    names = classifier_names(body)
    classifier = body.get_submodule(names[0]) if len(names) == 1 else None
    if classifier is not None:
        _check_walk(kind, spec, classifier)
    for own in names:
        body.set_submodule(own, nn.Identity())
    if classifier is None:
        _check_walk(kind, spec, None)
    anatomy = _with_exact_copies(measure(kind, name, spec.img_size))
    return FrozenBackbone(spec=spec, body=body, sha256="", kind=kind, anatomy=anatomy), classifier


def classifier_names(body: Any) -> list[str]:
    """The names of a network's classifiers: two where timm's network is distilled."""
    found = body.get_classifier()
    classifiers = found if isinstance(found, tuple) else (found,)
    return [name for name, module in body.named_modules() if any(module is c for c in classifiers)]


def _unknown(model: nn.Module, why: str) -> UsageError:
    """The error for a network of no known kind."""
    return UsageError(
        f"network '{_name_of(model)}' is of no kind that adapters know: {why}.",
        hint=f"Known are timm's {titles()}, with their usual blocks and layers: adapt first, then "
        "compile or wrap what comes of it.",
    )


def _name_of(model: Any) -> str:
    known = getattr(model, "pretrained_cfg", None) or {}
    return re.sub(r"\W", "_", str(known.get("architecture") or type(model).__name__))


def _describe(model: Any, img_size: int | None) -> Backbone:
    """The network's description from timm's configuration; the weights are the user's own."""
    name, known = _name_of(model), getattr(model, "pretrained_cfg", None) or {}
    sides = getattr(getattr(model, "patch_embed", None), "img_size", None)
    sides = sides or known.get("input_size", ())[1:]
    if img_size is not None:
        sides = (img_size,)
    if len(set(sides)) != 1 or not all(isinstance(side, int) and side > 0 for side in sides):
        got = " x ".join(map(str, sides)) or "none that it says"
        raise UsageError(
            f"network '{name}': adapters take square images; its own have the size {got}.",
            hint="img_size=224 says their side, where a network takes images of any size.",
        )
    return Backbone(name=name, timm=name, weights="own", img_size=sides[0])


def _sharing(model: nn.Module) -> nn.Module:
    """A copy of the modules that shares the parameters."""
    numbers: dict[int, Any] = {id(buffer): buffer.detach() for buffer in model.buffers()}
    for parameter in model.parameters():
        numbers[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    return copy.deepcopy(model, numbers)


def _wrapped(kind: Kind) -> str:
    """The wrapper around a layer that adapters change (such as a PEFT module), or ''."""
    for block, branches in enumerate(kind.branches):
        for site, module in (owner for branch in branches for owner in branch.owners.items()):
            if "weight" not in module._parameters:
                name = type(module).__name__
                return f"its {site} of block {block} is a {name} without a weight of its own"
    return ""


def _of_several_types(body: nn.Module) -> str:
    types = sorted({str(parameter.dtype) for parameter in body.parameters()})
    return f"its weights are of several types: {', '.join(types)}" if len(types) > 1 else ""


def _try_out(kind: Kind, spec: Backbone) -> None:
    image = blank_image(kind, spec.img_size)
    try:
        with torch.no_grad():
            found = kind.body.forward_head(kind.body.forward_features(image), pre_logits=True)
    except UNBUILDABLE as error:
        raise UsageError(
            f"network '{spec.name}' cannot take an image {list(image.shape[1:])}: {told(error)}",
            hint="img_size= says the side of the images, where it is not the network's own.",
        ) from None
    if found.ndim != 2:
        raise _unknown(kind.body, "without pooling there is no single feature of an image")


def _check_walk(kind: Kind, spec: Backbone, classifier: nn.Module | None) -> None:
    difference = relative_difference(kind, spec, classifier)
    allowed = tolerance(blank_image(kind, 1).dtype)
    if not difference <= allowed:
        raise WalkError(
            f"network '{spec.name}' computes something else than the walk by which adapters are "
            f"placed: they differ by {difference:.1e} of the largest; up to {allowed:.0e} is "
            "expected.",
            hint="A network that was changed after timm had built it may not be walked.",
        )


def tolerance(dtype: torch.dtype) -> float:
    """The relative difference allowed between outputs of a number type that should be equal."""
    return max(TOLERANCE, 8 * torch.finfo(dtype).eps)


def _with_exact_copies(anatomy: Anatomy) -> Anatomy:
    """The anatomy with frozen tensors on the CPU in at least float32, for `create`."""

    def frozen(site: Site, block: int) -> Tensors:
        return {
            name: tensor.to("cpu", torch.promote_types(tensor.dtype, torch.float32))
            for name, tensor in anatomy.frozen(site, block).items()
        }

    return replace(anatomy, frozen=frozen)
