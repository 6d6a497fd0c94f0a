"""The measurement of a backbone's anatomy, on a forward pass of one image.

Shapes are measured; nothing is inferred from names.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.sites import EMBED, Place, Site, SiteShape
from idat_zoo.adapters.tensors import Tensors
from idat_zoo.backbones.kinds.base import Kind
from idat_zoo.backbones.sites import Compute, Offer, Visitor
from idat_zoo.backbones.walk import Holder, begin, features


class Everywhere:
    """The set of all places, except prompts."""

    def __contains__(self, place: object) -> bool:
        return isinstance(place, Place) and place.site is not Site.PROMPT


def everywhere() -> Visitor:
    """A visitor that sees every place and changes nothing."""
    return Visitor(Everywhere(), lambda site, block, x, compute, frozen: compute(x, {}))


def pooled_alone() -> Visitor:
    """A visitor that changes nothing and leaves the tokens that are not pooled uncomputed."""
    return Visitor((), lambda site, block, x, compute, frozen: compute(x, {}), pooled_only=True)


def measure(kind: Kind, name: str, img_size: int) -> Anatomy:
    """The anatomy of a backbone at an image size. On the meta device nothing is computed."""
    shapes: dict[int, dict[Site, SiteShape]] = {}

    def note(site: Site, block: int, x: Tensor, compute: Compute, frozen: Tensors) -> Tensor:
        y = compute(x, {})
        shapes.setdefault(block, {})[site] = _shape(site, x, y)
        return y

    _walk(kind, img_size, note)
    depth = len(kind.blocks)
    return Anatomy(
        kind=name,
        blocks=tuple(_block(kind, i, shapes[i]) for i in range(depth)),
        ends={site: shape for i in (EMBED, depth) for site, shape in shapes.get(i, {}).items()},
        frozen=frozen_tensors(kind, img_size),
        parameters=parameters_read(kind, img_size),
        body=kind.body,
        image=(1, 3, img_size, img_size),
    )


def parameters_read(kind: Kind, img_size: int) -> Callable[[int], dict[str, Tensor]]:
    """A function that returns the parameters of a block by timm's names.

    A parameter between two blocks belongs to the next block, in the order of timm's modules. Those
    before the first block have block -1, those after the last block the depth. Parameters that no
    forward pass reads are left out. A walk at the first call finds them.
    """

    @cache
    def read() -> dict[int, dict[str, Tensor]]:
        home = {parameter: i for i, own in enumerate(kind.blocks) for parameter in own.parameters()}
        named = list(kind.body.named_parameters())
        depth, found = len(kind.blocks), {}
        block = depth
        for name, parameter in reversed(named):
            block = home.get(parameter, block)
            found[name] = block
        first = next(i for i, (_, parameter) in enumerate(named) if parameter in home)
        found |= dict.fromkeys((name for name, _ in named[:first]), EMBED)
        groups: dict[int, dict[str, Tensor]] = {i: {} for i in range(EMBED, depth + 1)}
        unread = _unread(kind, img_size)
        for name, parameter in named:
            if name not in unread:
                groups[found[name]][name] = parameter.detach()
        return groups

    return lambda block: read()[block]


def _unread(kind: Kind, img_size: int) -> set[str]:
    """The names of the parameters that the features do not depend on."""
    copies = {n: p.detach().requires_grad_() for n, p in kind.body.named_parameters()}
    nobody = Visitor((), lambda site, block, x, compute, frozen: compute(x, {}))
    with torch.enable_grad():
        begun = begin(blank_image(kind, img_size))
        pooled = Holder(kind.body).having(copies, lambda: features(kind, begun, nobody, None))
        gradients = torch.autograd.grad(pooled.sum(), list(copies.values()), allow_unused=True)
    return {name for name, own in zip(copies, gradients, strict=True) if own is None}


def blank_image(kind: Kind, img_size: int) -> Tensor:
    """One image `[1, C, S, S]` of zeros, with the backbone's channels, type and device."""
    weight: Any = kind.patch_projection.weight
    shape = (1, weight.shape[1], img_size, img_size)
    return torch.zeros(shape, device=weight.device, dtype=weight.dtype)


def _walk(kind: Kind, img_size: int, offer: Offer) -> None:
    with torch.no_grad():
        features(kind, begin(blank_image(kind, img_size)), Visitor(Everywhere(), offer), None)


def frozen_tensors(kind: Kind, img_size: int) -> Callable[[Site, int], Tensors]:
    """A function that returns the tensors read at a site of a block.

    A walk at the first call finds them.
    """

    @cache
    def read() -> dict[tuple[Site, int], Tensors]:
        found: dict[tuple[Site, int], Tensors] = {}

        def note(site: Site, block: int, x: Tensor, compute: Compute, frozen: Tensors) -> Tensor:
            found[site, block] = {name: tensor.detach() for name, tensor in frozen.items()}
            return compute(x, {})

        _walk(kind, img_size, note)
        return found

    return lambda site, block: read().get((site, block), {})


def _shape(site: Site, x: Tensor, y: Tensor) -> SiteShape:
    if site is Site.PATCH_EMBED:
        return SiteShape(tokens=y.shape[1], inputs=x.shape[1], outputs=y.shape[2])
    if site is Site.ATTENTION:  # [B, M, N, C]
        width = y.shape[1] * y.shape[3]
        return SiteShape(tokens=y.shape[0] * y.shape[2], inputs=width, outputs=width)
    tokens = math.prod(y.shape[:-1])  # of one image; in windows the rows are its own
    return SiteShape(tokens=tokens, inputs=x.shape[-1], outputs=y.shape[-1])


def _block(kind: Kind, block: int, sites: dict[Site, SiteShape]) -> BlockAnatomy:
    tokens = sites[Site.AFTER_MLP].tokens
    side = math.isqrt(tokens - kind.prefix)
    if kind.takes_prompts:
        width = sites[Site.AFTER_MLP].outputs
        sites = sites | {Site.PROMPT: SiteShape(tokens=0, inputs=width, outputs=width)}
    attention = getattr(kind.blocks[block], "attn", None)
    return BlockAnatomy(
        number=block,
        depth=len(kind.blocks),
        sites=sites,
        prefix=kind.prefix,
        grid=(side, side),
        num_heads=getattr(attention, "num_heads", 0),
    )
