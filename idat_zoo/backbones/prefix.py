"""The part of a network's forward pass that is the same at every step: computed once per image.

All before an adapter's first site is a constant of the image, as long as neither drop path nor a
changed image comes before it. Drop path's rates rise from 0 at block 0, so there it never acts.
For the linear probe without drop path it is the whole backbone.

Shape letters: N images, C channels, H W image.
"""

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from idat_zoo.adapters.base import Site
from idat_zoo.backbones.network import Network
from idat_zoo.backbones.walk import LEGS, Partway, Place, embed, walk


def constant_until(network: Network, drop_path: float) -> Place:
    """The last place a walk can be left at whose tensors do not change in training."""
    first, depth, order = network.adapter.first_site, network.anatomy.depth, list(Site)
    if first is not Site.FEATURES:
        return Place(0, [site for site in LEGS if order.index(site) <= order.index(first)][-1])
    if drop_path > 0 and depth > 1:
        return Place(1, Site.BLOCK_INPUT)
    return Place(depth, Site.FEATURES)


def prefix_bytes(network: Network, count: int, until: Place) -> int:
    """The memory that `walk_prefix` of `count` images takes, in float32."""
    tokens = 1 if until.site is Site.FEATURES else network.anatomy.num_tokens
    tensors = 2 if until.site is Site.AFTER_MLP else 1
    return 4 * count * tokens * network.anatomy.embed_dim * tensors


@torch.no_grad()
def walk_prefix(
    network: Network, images: UInt8[Tensor, "N C H W"], *, until: Place, batch_size: int
) -> Partway:
    """Every image's walk up to a place, in batches of the size that training has."""
    parts = []
    for batch in images.split(batch_size):
        start = embed(network.vit, network.normalise(batch))
        parts.append(walk(network.vit, start, _unchanged, None, until=until))
    tensors = zip(*(part.tensors for part in parts), strict=True)
    return Partway(until, tuple(torch.cat(own) for own in tensors))


def _unchanged(site: Site, block: int, x: Tensor, y: Tensor, module: nn.Module | None) -> Tensor:
    """Nothing stands at a site before the first."""
    return y
