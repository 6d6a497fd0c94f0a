"""The forward pass of a frozen timm backbone, with an offer to the adapter at every site.

Shape letters: B batch, C channels, H W image, N tokens, D width, L blocks, R branches.

It is timm's own forward pass with explicit residual sums; `kinds/` has what is special to a kind of
backbone. `self_check.py` verifies that the two are equal for each backbone that is loaded.

The walk can be left at some places and resumed there, so that everything before the first adapter
is computed once per image. These places are

    (0, patch_embed)   the images, normalised
    (i, block_input)   the tokens that enter block i
    (i, norm2)         the stream after block i's attention, where it has any
    (i, after_mlp)     what enters the last branch, and the block's output, which an adapter may
                       still replace
    (L, features)      the pooled features
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call

from idat_zoo.adapters.sites import EMBED, Site
from idat_zoo.adapters.sites import Place as Place
from idat_zoo.adapters.tensors import Tensors
from idat_zoo.backbones.kinds.base import Branch, Context, Kind
from idat_zoo.backbones.sites import Visitor

DropPath = Float[Tensor, "L R B"] | None
"""The drop-path factors of each image's branches (0: dropped)."""


@dataclass(frozen=True)
class Partway:
    """A walk left before a place, with the tensors from which it resumes, one row per image.

    `context` is the input that all blocks share; `prompts` counts the prompts after the prefix.
    """

    place: Place
    tensors: tuple[Tensor, ...]
    context: Context = None
    prompts: int = 0

    def __getitem__(self, rows: slice | Int64[Tensor, "_"]) -> "Partway":
        """The same place for a subset of the images."""
        return replace(self, tensors=tuple(tensor[rows] for tensor in self.tensors))


START = Place(0, Site.PATCH_EMBED)


def begin(images: Float[Tensor, "B C H W"]) -> Partway:
    """A walk of normalised images, before its first place."""
    return Partway(START, (images,))


def features(
    kind: Kind, begun: Partway, visitor: Visitor, drop_path: DropPath
) -> Float[Tensor, "B D"]:
    """Pooled features, resumed from a place."""
    last = Place(len(kind.branches), Site.FEATURES)
    (pooled,) = walk(kind, begun, visitor, drop_path, until=last).tensors
    return visitor.value(last.site, last.block, pooled, pooled)


class Holder(nn.Module):
    """A backbone whose parameters can be replaced while a function runs a walk through it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, run: Callable[[], Tensor]) -> Tensor:
        """The result of `run`."""
        return run()

    def having(self, copies: Tensors, run: Callable[[], Tensor]) -> Tensor:
        """The result while copies replace the backbone's own parameters, by timm's names."""
        if not copies:
            return run()
        own = {f"body.{name}": tensor for name, tensor in copies.items()}
        pooled: Tensor = functional_call(self, own, (run,))
        return pooled


def walk(
    kind: Kind, begun: Partway, visitor: Visitor, drop_path: DropPath, *, until: Place
) -> Partway:
    """Walk from a place to a later one, and stop before anything at `until` is computed."""
    here = begun
    while here.place != until:
        here = LEGS[here.place.site](kind, here, visitor, drop_path)
    return here


def places(kind: Kind, block: int) -> list[Site]:
    """The places in a block at which a walk may be left, in order."""
    within = [Site.NORM2] if len(kind.branches[block]) > 1 else []
    return [Site.BLOCK_INPUT, *within, Site.AFTER_MLP]


def _embed(kind: Kind, here: Partway, visitor: Visitor, drop_path: DropPath) -> Partway:
    (images,) = here.tensors
    with visitor.inside(EMBED, {Site.PATCH_EMBED: kind.patch_projection}):
        x, context = kind.embed(images)
    return Partway(Place(0, Site.BLOCK_INPUT), (kind.between(0, x),), context)


def _enter(kind: Kind, here: Partway, visitor: Visitor, drop_path: DropPath) -> Partway:
    i, (x,) = here.place.block, here.tensors
    x = visitor.value(Site.BLOCK_INPUT, i, x, x, layout=kind.layout)
    prompts = visitor.prompt(i, x)
    if prompts is not None:
        stay = kind.prefix + here.prompts
        x = torch.cat([x[:, : kind.prefix], prompts, x[:, stay:]], dim=1)
        here = replace(here, prompts=prompts.shape[1])
    if len(kind.branches[i]) == 1:
        return _last_branch(kind, replace(here, tensors=(x,)), visitor, drop_path)
    first = visitor.pooled_only and kind.pools_first_token and i == len(kind.branches) - 1
    h, branch = _branch(kind, here, x, 0, visitor, first_alone=first)
    if first:  # nothing reads the other tokens, nor the prompts among them
        x, here = x[:, :1], replace(here, prompts=0)
    branch = visitor.value(Site.ATTN, i, h, branch, layout=kind.branches[i][0].layout)
    after = x + _kept(kind.branches[i][0].leave(branch), drop_path, i, 0)
    after = visitor.value(Site.AFTER_ATTN, i, x, after, layout=kind.layout)
    return replace(here, place=Place(i, Site.NORM2), tensors=(after,))


def _last_branch(kind: Kind, here: Partway, visitor: Visitor, drop_path: DropPath) -> Partway:
    i, (x,) = here.place.block, here.tensors
    which = len(kind.branches[i]) - 1
    own = kind.branches[i][which]
    h, branch = _branch(kind, here, x, which, visitor)
    branch = visitor.value(Site.MLP, i, h, branch, layout=own.layout)
    y = x + _kept(own.leave(branch), drop_path, i, which)
    return replace(here, place=Place(i, Site.AFTER_MLP), tensors=(x, y))


def _leave(kind: Kind, here: Partway, visitor: Visitor, drop_path: DropPath) -> Partway:
    i, (before, y) = here.place.block, here.tensors
    x = visitor.value(Site.AFTER_MLP, i, before, y, layout=kind.layout)
    if i + 1 < len(kind.branches):
        x = kind.between(i + 1, x)
        return replace(here, place=Place(i + 1, Site.BLOCK_INPUT), tensors=(x,))
    if here.prompts:
        x = torch.cat([x[:, : kind.prefix], x[:, kind.prefix + here.prompts :]], dim=1)
    visitor.leaves_last_block(x, kind.layout)
    with visitor.inside(i + 1, {Site.FINAL_NORM: kind.final_norm}):
        pooled = kind.pool(x)
    return replace(here, place=Place(i + 1, Site.FEATURES), tensors=(pooled,), prompts=0)


Leg = Callable[[Kind, Partway, Visitor, DropPath], Partway]
LEGS: dict[Site, Leg] = {
    Site.PATCH_EMBED: _embed,
    Site.BLOCK_INPUT: _enter,
    Site.NORM2: _last_branch,
    Site.AFTER_MLP: _leave,
}
"""From each place to the next."""


def _branch(
    kind: Kind,
    here: Partway,
    x: Tensor,
    which: int,
    visitor: Visitor,
    *,
    first_alone: bool = False,
) -> tuple[Tensor, Tensor]:
    """The input of a branch's attention or MLP, and its output before it joins the stream.

    With `first_alone`, both are of the first token alone.
    """
    i = here.place.block
    own: Branch = kind.branches[i][which]
    norm = Site.NORM2 if which == len(kind.branches[i]) - 1 else Site.NORM1
    context = kind.context_of(here.context, i)
    if own.attends and here.prompts:
        context = kind.with_prompts(context, here.prompts)
    h = own.enter(x)
    if not own.norm_last:
        h = visitor.module(norm, i, h, own.norm, layout=own.layout)
    inside = visitor.inside(
        i,
        own.owners,
        attends=own.attends,
        prompts=here.prompts,
        prefix=kind.prefix,
        first_alone=first_alone,
    )
    with inside:
        branch = own.inner(h, context)
    if first_alone:
        h = h[:, :1]
    if own.norm_last:
        branch = visitor.module(norm, i, branch, own.norm, layout=own.layout)
    return h, own.scale(branch)


def _kept(branch: Tensor, drop_path: Tensor | None, block: int, which: int) -> Tensor:
    if drop_path is None:
        return branch
    return branch * drop_path[block, which].view(-1, *[1] * (branch.ndim - 1))
