"""The adapter protocol: what a family declares, and the pure functions it is made of.

Shape letters: B batch, N tokens, D width, R bottleneck or rank, T tasks.

The backbone is walked block by block (`backbones/walk.py`). At every *site* of the walk the family
is offered the site's input `x` and what the frozen network computed there, `y`, and returns the
value that takes y's place:

    site          x                          y
    block_input   tokens entering the block  the same tokens
    norm1         tokens entering the block  after the first norm
    qkv           after norm1                the fused projection, rows q | k | v
    proj          attention's heads, joined  their projection
    attn          after norm1                the attention branch, before it is added
    after_attn    tokens entering the block  the stream with the attention branch added
    norm2         the stream after attention after the second norm
    fc1, fc2      the linear layer's input   its output
    mlp           after norm2                the MLP branch, before it is added
    after_mlp     the stream after attention the block's output
    features      pooled features [B, D]     the same features; the head comes next

How a family is written, once for one task and for many: `apply` is a pure function of tensors, x,
y, frozen weights and masks, of plain shapes `[B, N, D]`. A stack of T tasks runs the very same
function under `torch.vmap`, over a leading axis of tensors, activations and masks, while the
frozen weights are shared; tensors of unlike rank are padded with zeros to the largest. Options in
which the tasks of one pass may differ are named in `stacks_over`, and `apply` cannot read them
there: numbers such as a scale are `constants`, which arrive as 0-d tensors; and a zero in the
padded part of a tensor must add nothing. A tensor that one task has and another has not is all
zeros for that one. Tasks that differ in any other option have passes of their own.

Where the forms that come next go (a test builds a toy of each of the first five):

* prompts: a tensor `blocks.{i}.prompt` [P, D], inserted behind the prefix tokens at `block_input`;
  deep prompts replace the ones of the block before, which `apply_carrying` tells it of.
* state from block to block (side networks, residual attention): `apply_carrying`.
* tensors shared across blocks: named `shared.…`; every block is handed them beside its own.
* frozen random tensors (VeRA's projections): `Created.frozen`; saved with the adapter.
* trained copies (biases, norms, all): `create` is given the backbone's tensors and copies what it
  trains; at the site `y + (copy - frozen["bias"])`, or y computed anew from x and the copy.
* attention-level forms (Inducer-tuning): a new site between qkv and proj with x = (q, k, v).
* dense deltas and merging: `merge` returns the frozen module's new tensors at a linear site.
  Prompts and nonlinear bottlenecks cannot be merged and say so.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

import torch
from pydantic import JsonValue, ValidationError
from torch import Tensor

from idat_zoo.errors import RecipeError
from idat_zoo.recipe import Frozen, describe_faults

Tensors = Mapping[str, Tensor]
Carry = Mapping[str, Tensor]

UNWRITTEN: dict[str, JsonValue] = {"unwritten": True}
"""Marks an option that came after recipes were released (`json_schema_extra` of its field).

At its default it is left out of recipes, so that those keep their bytes.
"""


class Site(StrEnum):
    """A place in the walk, in the order in which the walk meets it."""

    BLOCK_INPUT = "block_input"
    NORM1 = "norm1"
    QKV = "qkv"
    PROJ = "proj"
    ATTN = "attn"
    AFTER_ATTN = "after_attn"
    NORM2 = "norm2"
    FC1 = "fc1"
    FC2 = "fc2"
    MLP = "mlp"
    AFTER_MLP = "after_mlp"
    FEATURES = "features"


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """A backbone as a family may know it: measures, and frozen tensors by timm's names."""

    embed_dim: int
    depth: int
    num_heads: int
    num_tokens: int
    weights: Tensors = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Created:
    """An adapter's tensors: `blocks.{i}.NAME` belong to block i, `shared.NAME` to all."""

    trainable: dict[str, Tensor]
    frozen: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Mask:
    """A random mask the engine draws anew each step, for one image: its shape and drop rate.

    It comes as a tensor `[B, *shape]`, 0 with probability `rate`, else 1 / (1 - rate).
    """

    shape: tuple[int, ...]
    rate: float


class Adapter(ABC):
    """One adapter family with its options. See the module's text for the contract."""

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    year: ClassVar[int]
    Options: ClassVar[type[Frozen]]
    stacks_over: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, **options: Any) -> None:  # values are checked by Options
        try:
            self.options = self.Options(**options)
        except ValidationError as error:
            raise RecipeError(describe_faults(error, where=f"adapter '{self.name}'")) from None

    @property
    @abstractmethod
    def sites(self) -> frozenset[Site]:
        """Where it acts. A plain attribute of the class where no option changes that."""

    @property
    def stackable(self) -> bool:
        """Whether tasks may share a pass at all. May be a plain attribute, as `mergeable`."""
        return True

    @property
    def mergeable(self) -> bool:
        """Whether `merge` can fold it into the frozen weights."""
        return False

    @property
    def stack_key(self) -> Hashable:
        """What adapters that share a pass have in common: all but the options in `stacks_over`."""
        return type(self), self.sites, self.options.model_dump_json(exclude=set(self.stacks_over))

    @property
    def first_site(self) -> Site:
        """Where it first touches block 0; all before it is a constant of the image."""
        return min(self.sites, key=list(Site).index)

    @property
    def constants(self) -> dict[str, float]:
        """Numbers that `apply` receives as 0-d tensors. Neither saved nor trained."""
        return {}

    @abstractmethod
    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """New float32 tensors on CPU, every random number of them drawn from `generator`."""

    def masks(self, site: Site, anatomy: Anatomy) -> dict[str, Mask]:
        """The masks it wants at a site in training; rates of 0 are not drawn."""
        return {}

    @abstractmethod
    def apply(
        self, site: Site, tensors: Tensors, x: Tensor, y: Tensor, *, frozen: Tensors, masks: Tensors
    ) -> Tensor:
        """The value that takes y's place at a site. Pure; see the module's text.

        `tensors`: this block's and the shared ones, and the constants, by their own names.
        `frozen`: tensors of the frozen module at the site. `masks`: empty in evaluation.
        """

    def apply_carrying(
        self,
        site: Site,
        tensors: Tensors,
        x: Tensor,
        y: Tensor,
        carry: Carry,
        *,
        frozen: Tensors,
        masks: Tensors,
    ) -> tuple[Tensor, Carry]:
        """As `apply`, for families that carry tensors from site to site; begins with none."""
        return self.apply(site, tensors, x, y, frozen=frozen, masks=masks), carry

    def merge(self, site: Site, tensors: Tensors, frozen: Tensors) -> dict[str, Tensor]:
        """The frozen module's tensors with the adapter folded in, for `mergeable` families."""
        raise TypeError(f"adapter '{self.name}' cannot be merged")


def masked(x: Tensor, masks: Tensors, name: str) -> Tensor:
    """x times a mask where the engine supplied one (training), else x."""
    return x * masks[name] if name in masks else x


def trunc_normal(*shape: int, std: float, generator: torch.Generator) -> Tensor:
    """Normal values cut at ±2, timm's `trunc_normal_`: for small std practically plain normal."""
    return torch.nn.init.trunc_normal_(torch.empty(shape), std=std, generator=generator)
