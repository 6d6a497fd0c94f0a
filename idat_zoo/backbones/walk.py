"""The forward pass of a frozen timm ViT, with a call at every site an adapter may stand at.

Shape letters: B batch, C channels, H W image, N tokens, D width, L blocks.

timm's own `VisionTransformer.forward_features` and `forward_head`, spelled out; a test holds the
two equal for every form the registry names (class token, registers, LayerScale, qk-norm, pooling).

The walk can be left at some places and taken up again there, so that what comes before the first
adapter is computed once for each image. Such places are

    (i, block_input)   the tokens that enter block i
    (i, norm2)         the stream after block i's attention
    (i, after_mlp)     that, and the block's output, which an adapter may still replace
    (L, features)      the pooled features
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from idat_zoo.adapters.base import Site

At = Callable[[Site, int, Tensor, Tensor, nn.Module | None], Tensor]
"""(site, block, x, y, the frozen module that made y of x if it is one) -> what takes y's place."""

DropPath = Float[Tensor, "L 2 B"] | None
"""What scales each image's branches (0: dropped)."""


class Place(NamedTuple):
    """Where a walk may be left: in which block, before which site."""

    block: int
    site: Site


@dataclass(frozen=True)
class Partway:
    """A walk that was left at a place, with the tensors that go on from there, one row an image."""

    place: Place
    tensors: tuple[Tensor, ...]

    def __getitem__(self, rows: slice | Int64[Tensor, "_"]) -> "Partway":
        """The same place for some of the images."""
        return Partway(self.place, tuple(tensor[rows] for tensor in self.tensors))


def embed(vit: Any, images: Float[Tensor, "B C H W"]) -> Partway:  # timm types blocks as modules
    """The tokens that enter block 0."""
    x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
    return Partway(Place(0, Site.BLOCK_INPUT), (x,))


def features(vit: Any, start: Partway, at: At, drop_path: DropPath) -> Float[Tensor, "B D"]:
    """Pooled features, from a place on."""
    last = Place(len(vit.blocks), Site.FEATURES)
    (pooled,) = walk(vit, start, at, drop_path, until=last).tensors
    return at(last.site, last.block, pooled, pooled, None)


def walk(vit: Any, start: Partway, at: At, drop_path: DropPath, *, until: Place) -> Partway:
    """From a place to a later one; nothing at `until` itself has happened yet."""
    here = start
    while here.place != until:
        here = LEGS[here.place.site](vit, here, at, drop_path)
    return here


def _attend(vit: Any, here: Partway, at: At, drop_path: DropPath) -> Partway:
    i, (x,) = here.place.block, here.tensors
    block = vit.blocks[i]
    x = at(Site.BLOCK_INPUT, i, x, x, None)
    h = at(Site.NORM1, i, x, block.norm1(x), block.norm1)
    branch = at(
        Site.ATTN, i, h, block.ls1(_attention(block.attn, h, partial(_within, at, i))), None
    )
    after = at(Site.AFTER_ATTN, i, x, x + _kept(branch, drop_path, i, 0), None)
    return Partway(Place(i, Site.NORM2), (after,))


def _transform(vit: Any, here: Partway, at: At, drop_path: DropPath) -> Partway:
    i, (after,) = here.place.block, here.tensors
    block = vit.blocks[i]
    h = at(Site.NORM2, i, after, block.norm2(after), block.norm2)
    branch = at(Site.MLP, i, h, block.ls2(_mlp(block.mlp, h, partial(_within, at, i))), None)
    return Partway(Place(i, Site.AFTER_MLP), (after, after + _kept(branch, drop_path, i, 1)))


def _leave(vit: Any, here: Partway, at: At, drop_path: DropPath) -> Partway:
    i, (after, y) = here.place.block, here.tensors
    x = at(Site.AFTER_MLP, i, after, y, None)
    if i + 1 < len(vit.blocks):
        return Partway(Place(i + 1, Site.BLOCK_INPUT), (x,))
    pooled = vit.forward_head(vit.norm(x), pre_logits=True)
    return Partway(Place(i + 1, Site.FEATURES), (pooled,))


LEGS = {Site.BLOCK_INPUT: _attend, Site.NORM2: _transform, Site.AFTER_MLP: _leave}
"""From each place to the next."""


def _within(at: At, block: int, site: Site, x: Tensor, module: nn.Module) -> Tensor:
    """A frozen linear layer inside a block, and the site at its output."""
    return at(site, block, x, module(x), module)


def _kept(branch: Tensor, drop_path: Tensor | None, block: int, which: int) -> Tensor:
    return branch if drop_path is None else branch * drop_path[block, which, :, None, None]


Linear = Callable[[Site, Tensor, nn.Module], Tensor]


def _attention(attn: Any, x: Float[Tensor, "B N D"], linear: Linear) -> Tensor:
    B, N, _ = x.shape
    qkv = linear(Site.QKV, x, attn.qkv)
    q, k, v = qkv.reshape(B, N, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    joined = F.scaled_dot_product_attention(attn.q_norm(q), attn.k_norm(k), v)
    joined = joined.transpose(1, 2).reshape(B, N, -1)
    if hasattr(attn, "norm"):  # not in the first timm 1.0
        joined = attn.norm(joined)
    return linear(Site.PROJ, joined, attn.proj)


def _mlp(mlp: Any, x: Float[Tensor, "B N D"], linear: Linear) -> Tensor:
    hidden = mlp.act(linear(Site.FC1, x, mlp.fc1))
    return linear(Site.FC2, mlp.norm(hidden), mlp.fc2)
