"""The constant prefix of a forward pass: the part before an adapter's first site, computed once.

Before that site, an image's values do not change during training, as long as neither drop path nor
a changed image comes earlier. Drop path acts from the adapter's first block on, and never in block
0, where its rate is 0. For the linear probe without drop path, the prefix is the whole backbone.

Shape letters: N images, C channels, H W image.
"""

import torch
from jaxtyping import UInt8
from torch import Tensor

from idat_zoo.adapters.sites import EMBED, Place, Site
from idat_zoo.backbones.network import Network
from idat_zoo.backbones.sites import Visitor
from idat_zoo.backbones.walk import START, Partway, begin, places, walk
from idat_zoo.joined_images import JoinedImages


def constant_until(network: Network, drop_path: float, *, reads_tokens: bool = False) -> Place:
    """The last resumable place of the walk before which nothing changes in training.

    It is the start for an adapter that changes the patch embedding. With `reads_tokens`, the tokens
    that leave the last block are needed at every step, so the place is not behind them.
    """
    first = min(network.places, key=in_order)
    drops = max(network.first_block, 1)  # at block 0 the rate is 0
    if drop_path > 0 and drops < network.anatomy.depth:
        first = min(first, Place(drops, Site.BLOCK_INPUT), key=in_order)
    if first.block == EMBED:
        return START
    if first.block == network.anatomy.depth:
        last = Place(first.block - 1, Site.AFTER_MLP)
        return first if first.site is Site.FEATURES and not reads_tokens else last
    left = [Place(first.block, site) for site in places(network.kind, first.block)]
    return [place for place in left if in_order(place) <= in_order(first)][-1]


def in_order(place: Place) -> tuple[int, int]:
    """A sort key: the order in which a walk reaches places."""
    return place.block, list(Site).index(place.site)


def prefix_bytes(network: Network, count: int, until: Place) -> int:
    """The bytes of memory that `walk_prefix` of `count` images takes, in float32."""
    if until.site is Site.FEATURES:
        return 4 * count * network.anatomy.num_features
    block = network.anatomy.blocks[until.block]
    tensors = 2 if until.site is Site.AFTER_MLP else 1
    return 4 * count * block.tokens * block.width * tensors


@torch.no_grad()
def walk_prefix(
    network: Network,
    images: UInt8[Tensor, "N C H W"] | JoinedImages,
    *,
    until: Place,
    batch_size: int,
    reads_tokens: bool = False,
) -> Partway:
    """Every image's walk up to a place, computed in batches of the training's size."""
    nobody = Visitor(
        (),
        lambda site, block, x, compute, frozen: compute(x, {}),
        pooled_only=network.pooled_only and not reads_tokens,
    )
    wholes: tuple[Tensor, ...] = ()
    for number, batch in enumerate(images.split(batch_size)):
        part = walk(network.kind, begin(network.normalise(batch)), nobody, None, until=until)
        if not number:
            context = part.context
            wholes = tuple(_empty_like(own, len(images)) for own in part.tensors)
        for whole, own in zip(wholes, part.tensors, strict=True):
            whole[number * batch_size :][: len(own)] = own
    return Partway(until, wholes, context)


def _empty_like(part: Tensor, count: int) -> Tensor:
    """An uninitialised tensor of `count` rows like those of `part`, as `torch.cat` would have.

    It is filled batch by batch: joining the batches at the end would take twice the memory.
    """
    channels_last = part.ndim == 4 and part.is_contiguous(memory_format=torch.channels_last)
    form = torch.contiguous_format
    if channels_last and not part.is_contiguous():
        form = torch.channels_last
    shape = (count, *part.shape[1:])
    return torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=form)
