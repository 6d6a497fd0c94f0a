"""Toy families of adapters: prompts, trained copies, and changes inside attention."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Created, Tensors
from idat_zoo.backbones.kinds.base import ROLES
from idat_zoo.values import Frozen


class PromptOptions(Frozen):
    """Options of the toy."""

    count: int = 3
    deep: bool = False


class Prompted(Adapter):
    """Prompts before block 0, or new ones before every block."""

    name, title, paper, year = "prompted", "prompted", "", 0
    Options = PromptOptions
    options: PromptOptions
    sites: ClassVar = frozenset({Site.PROMPT})

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        shape = (self.options.count, anatomy.blocks[0].width)
        blocks = range(anatomy.depth if self.options.deep else 1)
        draw = {f"blocks.{i}.prompt": torch.randn(shape, generator=generator) for i in blocks}
        return Created(trainable=draw)

    @property
    def num_prompts(self) -> int:
        return self.options.count

    def prompt(self, tensors: Tensors, *, masks: Tensors) -> Tensor | None:
        return tensors.get("prompt")

    def apply(
        self,
        site: Site,
        tensors: Tensors,
        x: Tensor,
        y: Tensor,
        *,
        frozen: Tensors,
        masks: Tensors,
        block: BlockAnatomy,
    ) -> Tensor:
        raise AssertionError(f"nothing else was asked for, but {site}")


def with_still_rows(rope: Tensor, count: int) -> Tensor:
    """Rotations of 0 degrees, sine 0 and cosine 1, before the others."""
    sin, cos = rope.chunk(2, -1)
    row = torch.cat([torch.zeros_like(sin[..., :1, :]), torch.ones_like(cos[..., :1, :])], -1)
    return torch.cat([row] * count + [rope], -2)


def with_empty_rows(bias: Tensor, count: int) -> Tensor:
    """A bias of scores in which so many tokens behind the first have none."""
    N = bias.shape[-1]
    full = bias.new_zeros(*bias.shape[:-2], N + count, N + count)
    old = [0, *range(1 + count, N + count)]
    for row, place in enumerate(old):
        full[..., place, old] = bias[..., row, :]
    return full


def prompted_by_hand(body: Any, images: Tensor, prompts: dict[int, Tensor], count: int) -> Tensor:
    """What timm's own blocks make of tokens with prompts among them."""
    name, x = type(body).__name__, body.patch_embed(images)
    prefix = 1 if name == "Beit" else body.num_prefix_tokens
    arguments: list[dict[str, Tensor]] = [{} for _ in body.blocks]
    restored = []
    if name == "Eva":
        x, rope = body._pos_embed(x)
        x = body.norm_pre(x)
        for i, own in enumerate(arguments):
            if rope is not None:
                mixed = getattr(body, "rope_mixed", False)
                own["rope"] = with_still_rows(rope[i] if mixed else rope, count)
    elif name == "Beit":
        x = torch.cat([body.cls_token.expand(len(x), -1, -1), x], 1)
        if body.pos_embed is not None:
            x = x + body.pos_embed
        for block, own in zip(body.blocks, arguments, strict=True):
            if body.rel_pos_bias is not None:
                own["shared_rel_pos_bias"] = with_empty_rows(body.rel_pos_bias(), count)
            else:
                bias = with_empty_rows(block.attn._get_rel_pos_bias(), count)
                block.attn._get_rel_pos_bias = lambda bias=bias: bias
                restored.append(block.attn)
    else:
        x = body.norm_pre(body.patch_drop(body._pos_embed(x)))
    standing = 0
    for i, (block, own) in enumerate(zip(body.blocks, arguments, strict=True)):
        if i in prompts:
            new = prompts[i].expand(len(x), -1, -1)
            x = torch.cat([x[:, :prefix], new, x[:, prefix + standing :]], 1)
            standing = count
        x = block(x, **own)
    for attention in restored:
        del attention._get_rel_pos_bias
    x = torch.cat([x[:, :prefix], x[:, prefix + count :]], 1)
    pooled: Tensor = body.forward_head(body.norm(x), pre_logits=True)
    return pooled


LINEAR = frozenset(ROLES.values())
NORMS = frozenset({Site.NORM1, Site.NORM2, Site.FINAL_NORM})
COPIED = LINEAR | NORMS | {Site.PATCH_EMBED}


class CopyOptions(Frozen):
    """Options of the toy."""

    tensors: tuple[str, ...] = ("weight", "bias")


class Copied(Adapter):
    """Trains copies of all that the frozen network reads: full fine-tuning, or biases alone."""

    name, title, paper, year = "copied", "copied", "", 0
    Options = CopyOptions
    options: CopyOptions
    sites: ClassVar = COPIED

    def misfit(self, anatomy: Anatomy) -> str:
        return ""

    def copies(self, site: Site) -> tuple[str, ...]:
        return self.options.tensors

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        places = [(f"blocks.{i}", i) for i in range(anatomy.depth)]
        places += [("embed", -1), ("pool", anatomy.depth)]
        return Created(
            trainable={
                f"{where}.{site}.{name}": tensor.clone()
                for where, block in places
                for site in sorted(COPIED)
                for name, tensor in anatomy.frozen(site, block).items()
                if name in self.options.tensors
            }
        )

    def apply(
        self,
        site: Site,
        tensors: Tensors,
        x: Tensor,
        y: Tensor,
        *,
        frozen: Tensors,
        masks: Tensors,
        block: BlockAnatomy,
    ) -> Tensor:
        return y


class Attending(Adapter):
    """Computes attention anew from q, k and v, and adds a share of it to what was computed."""

    name, title, paper, year = "attending", "attending", "", 0
    Options = Frozen
    sites: ClassVar = frozenset({Site.ATTENTION})

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        return Created(trainable={"shared.gain": torch.zeros(())})

    def apply(
        self,
        site: Site,
        tensors: Tensors,
        x: Tensor,
        y: Tensor,
        *,
        frozen: Tensors,
        masks: Tensors,
        block: BlockAnatomy,
    ) -> Tensor:
        q, k, v = x.unbind(dim=1)
        scores = q @ k.transpose(-2, -1) * frozen["scale"]
        if "bias" in frozen:
            scores = scores + frozen["bias"]
        return scores.softmax(dim=-1) @ v + tensors["gain"] * y


class PromptedAttending(Attending):
    """The same among prompts."""

    sites: ClassVar = frozenset({Site.ATTENTION, Site.PROMPT})

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        own = super().create(anatomy, generator).trainable
        return Created(trainable=own | Prompted().create(anatomy, generator).trainable)

    @property
    def num_prompts(self) -> int:
        return 3

    def prompt(self, tensors: Tensors, *, masks: Tensors) -> Tensor | None:
        return tensors.get("prompt")
