"""The adapter protocol: what a family declares, and the pure functions it is made of.

Shape letters: B batch, N tokens, D width, R bottleneck or rank, T tasks.

The backbone is walked block by block (`backbones/walk.py`). At every *site* of the walk the family
is offered the site's input `x` and what the frozen network computed there, `y`, and returns the
value that takes y's place:

    site          x                          y
    patch_embed   images [B, 3, H, W]        the patches' embedding
    block_input   tokens entering the block  the same tokens
    prompt        (see `prompt`)             tokens that are put behind the prefix tokens
    norm1         tokens entering the block  after the first norm
    qkv           after norm1                the fused projection, rows q | k | v
    q, k, v       after norm1                each projection, where they are not fused
    attention     q, k and v [B, 3, M, N, C] each of M heads' tokens, attended to [B, M, N, C]
    proj          attention's heads, joined  their projection
    attn          after norm1                the attention branch, before it is added
    after_attn    tokens entering the block  the stream with the attention branch added
    norm2         the stream after attention after the second norm
    fc1, fc2      the linear layer's input   its output
    gate          fc1's input                the gate of a gated MLP, where it is a layer of its own
    mlp           after norm2                the MLP branch, before it is added
    after_mlp     the stream after attention the block's output
    final_norm    the last block's output    after the last norm
    features      pooled features [B, D]     the same features; the head comes next

Where in the network that is, `places_on` says: at its `sites`, in the blocks that its option
`blocks` names, which all families have that stand in blocks. What comes before the first block is
changed if that block is among them, what comes behind the last if the last is.

Tokens are `[B, N, D]` whatever layout the backbone has: windows are rows of their own inside their
attention, pixels of a feature map are tokens. Which sites there are, and the shapes there, differ
between kinds of backbones: `Anatomy` tells. A site that a backbone does not have keeps a family
off it (`Adapter.misfit`). A block without attention (ConvNeXt's) has the sites of its one branch:
norm2 to after_mlp. Where the norm comes last (SwinV2's blocks), `norm1` and `norm2` are offered the
branch and its norm.

How a family is written, once for one task and for many: `apply` is a pure function of tensors, x,
y, frozen weights and masks, of plain shapes `[B, N, D]`. A stack of T tasks runs the very same
function under `torch.vmap`, over a leading axis of tensors, activations and masks, while the
frozen weights are shared; tensors of unlike rank are padded with zeros to the largest. Options in
which the tasks of one pass may differ are named in `stacks_over`, and `apply` cannot read them
there: numbers such as a scale are `constants`, which arrive as 0-d tensors; and a zero in the
padded part of a tensor must add nothing. A tensor that one task has and another has not is all
zeros for that one. Tasks that differ in any other option have passes of their own.

Where the forms that come next go (a test builds a toy of each of the first five):

* prompts: `num_prompts` and `prompt`; the kind of backbone inserts them (without a rotation, with
  a relative bias of zero), or has no such site.
* state from block to block (side networks, residual attention): `apply_carrying`.
* tensors shared across blocks: named `shared.…`; every block is handed them beside its own.
* frozen random tensors (VeRA's projections): `Created.frozen`; saved with the adapter.
* trained copies (biases, norms): `create` copies `anatomy.frozen(site, block)`, and `copies` names
  them; the call that reads the frozen tensors is then made with the copies.
* a trained copy of whatever a block computes with (full fine-tuning): tensors `body.NAME`.
* attention-level forms (Inducer-tuning): the site `attention`; `frozen` has the `bias` that is
  added to the scores, if there is any, and their `scale`.
* dense deltas and merging: `merge` returns the frozen module's new tensors at a linear site or a
  norm; what acts between two layers is folded into the later one (`merges_at`). Prompts and
  nonlinear bottlenecks cannot be merged and say so.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from idat_zoo.errors import RecipeError
from idat_zoo.option_words import ALL, chosen_blocks
from idat_zoo.recipe import Frozen, describe_faults

Tensors = Mapping[str, Tensor]
Carry = Mapping[str, Tensor]


class Site(StrEnum):
    """A place in the walk, in the order in which the walk meets it."""

    PATCH_EMBED = "patch_embed"
    BLOCK_INPUT = "block_input"
    PROMPT = "prompt"
    NORM1 = "norm1"
    QKV = "qkv"
    Q = "q"
    K = "k"
    V = "v"
    ATTENTION = "attention"
    PROJ = "proj"
    ATTN = "attn"
    AFTER_ATTN = "after_attn"
    NORM2 = "norm2"
    FC1 = "fc1"
    GATE = "gate"
    FC2 = "fc2"
    MLP = "mlp"
    AFTER_MLP = "after_mlp"
    FINAL_NORM = "final_norm"
    FEATURES = "features"


EMBED = -1
"""The block that the patch embedding's site is said to be in; what follows the last is in L."""


class Place(NamedTuple):
    """A site of one block."""

    block: int
    site: Site


def home_of(block: int, depth: int) -> str:
    """What the names of a block's tensors begin with; -1 and the depth are the two ends."""
    return {EMBED: "embed.", depth: "pool."}.get(block, f"blocks.{block}.")


@dataclass(frozen=True, kw_only=True)
class SiteShape:
    """What one image has at a site: so many tokens, from vectors of one width to another's."""

    tokens: int
    inputs: int
    outputs: int


@dataclass(frozen=True, kw_only=True)
class BlockAnatomy:
    """One block: its sites, the tokens before its grid, the grid (rows, columns), its heads.

    `num_heads` is 0 where there is no attention. `number` is the block's, of so many (`depth`).
    """

    number: int
    depth: int
    sites: Mapping[Site, SiteShape]
    prefix: int
    grid: tuple[int, int]
    num_heads: int

    @property
    def width(self) -> int:
        """D of the stream."""
        return self.sites[Site.AFTER_MLP].outputs

    @property
    def hidden(self) -> int:
        """The width inside its MLP."""
        return self.sites[Site.FC2].inputs

    @property
    def tokens(self) -> int:
        """N of the stream, prefix and grid."""
        return self.sites[Site.AFTER_MLP].tokens

    @property
    def norm_last(self) -> bool:
        """Whether its norms come behind what they are of: sites are in the order of the walk."""
        order = list(self.sites)
        return order.index(Site.NORM2) > order.index(Site.FC2)

    @property
    def branches(self) -> int:
        """How many branches are added to the stream: attention's, if there is any, and the MLP."""
        return 2 if Site.ATTN in self.sites else 1


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """A backbone as a family may know it, as it was measured: its kind, blocks and two ends.

    `ends` has the shapes of patch_embed, final_norm and features. `frozen` gives the frozen tensors
    that are read at a site of a block (`weight`, `bias`): the block of patch_embed is -1, that of
    final_norm and features is the depth. `parameters` gives all of a block by timm's names, with
    what comes between the block before and it; those of -1 and of the depth are all others. `body`
    is timm's network, of no values where none are loaded, and `image` the shape of what it takes:
    for PEFT's tuners, which change it.
    """

    kind: str
    blocks: tuple[BlockAnatomy, ...]
    ends: Mapping[Site, SiteShape]
    frozen: Callable[[Site, int], Tensors] = field(repr=False, compare=False)
    parameters: Callable[[int], Tensors] = field(repr=False, compare=False)
    body: Any = field(repr=False, compare=False)
    image: tuple[int, ...]

    @property
    def depth(self) -> int:
        """How many blocks there are."""
        return len(self.blocks)

    @property
    def num_features(self) -> int:
        """D of the pooled features."""
        return self.ends[Site.FEATURES].outputs

    @property
    def sites(self) -> frozenset[Site]:
        """The sites that it has: in every block, and at its ends."""
        return frozenset.intersection(*(frozenset(b.sites) for b in self.blocks)) | set(self.ends)

    @property
    def sites_of_any(self) -> frozenset[Site]:
        """The sites that some block has, and those at its ends."""
        return frozenset.union(*(frozenset(b.sites) for b in self.blocks)) | set(self.ends)

    def shape(self, site: Site, block: int) -> SiteShape:
        """What one image has at a site."""
        return self.ends[site] if site in self.ends else self.blocks[block].sites[site]

    def block(self, number: int) -> BlockAnatomy:
        """A block; the first stands for what comes before it, the last for what follows."""
        return self.blocks[min(max(number, 0), self.depth - 1)]


@dataclass(frozen=True, kw_only=True)
class Created:
    """An adapter's tensors: `blocks.{i}.NAME` belong to block i, `shared.NAME` to all.

    `embed.NAME` belong to the patch embedding, `pool.NAME` to what follows the last block.
    `body.NAME` take the place of the backbone's own parameter NAME.
    """

    trainable: dict[str, Tensor]
    frozen: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Mask:
    """A random mask the engine draws anew each step, for one image: its shape and drop rate.

    It comes as a tensor `[B, *shape]`, 0 with probability `rate`, else 1 / (1 - rate). One that is
    `with_drop_path` has its block's rate of drop path, and draws of its own. One that is `alike`
    is drawn once, for all images. One that is `noise` has standard normal values, and no rate.
    """

    shape: tuple[int, ...]
    rate: float = 0.0
    with_drop_path: bool = False
    alike: bool = False
    noise: bool = False


class Adapter(ABC):
    """One adapter family with its options. See the module's text for the contract."""

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    year: ClassVar[int]
    Options: ClassVar[type[Frozen]]
    stacks_over: ClassVar[frozenset[str]] = frozenset()

    lives_within: int = 2
    """Steps in which each of its tensors is to get a gradient."""

    def __init__(self, **options: Any) -> None:  # values are checked by Options
        try:
            self.options = self.Options(**options)
        except ValidationError as error:
            raise RecipeError(describe_faults(error, where=f"adapter '{self.name}'")) from None

    @property
    def word(self) -> str:
        """What the command line calls it."""
        return self.name

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

    def sites_on(self, anatomy: Anatomy) -> frozenset[Site]:
        """Where it acts on one backbone: on another it may take other layers for its own."""
        return self.sites

    @property
    def blocks(self) -> str:
        """Which blocks it stands in, as its option says."""
        return getattr(self.options, "blocks", ALL)

    def numbers_in(self, anatomy: Anatomy) -> tuple[int, ...]:
        """The numbers of those blocks, ascending. Raises: ValueError where there are fewer."""
        return chosen_blocks(self.blocks, anatomy.depth)

    def stands_in(self, anatomy: Anatomy) -> list[tuple[int, BlockAnatomy]]:
        """Those blocks by their numbers, for `create`."""
        return [(i, anatomy.blocks[i]) for i in self.numbers_in(anatomy)]

    def places_on(self, anatomy: Anatomy) -> frozenset[Place]:
        """All that it changes: its sites in its blocks, and at an end beside one of them."""
        numbers, depth = self.numbers_in(anatomy), anatomy.depth
        ends = {Site.PATCH_EMBED: EMBED, Site.FINAL_NORM: depth, Site.FEATURES: depth}
        found = set()
        for site in self.sites_on(anatomy):
            if site not in ends:
                found |= {Place(i, site) for i in numbers if site in anatomy.blocks[i].sites}
            elif anatomy.depth - 1 in numbers if ends[site] == depth else 0 in numbers:
                found |= {Place(ends[site], site)} if site in anatomy.ends else set()
        return frozenset(found)

    def merges_at(self, anatomy: Anatomy) -> frozenset[Place]:
        """Where `merge` folds it in: what acts on a norm's output may go into the next layers."""
        return self.places_on(anatomy)

    @property
    def constants(self) -> dict[str, float]:
        """Numbers that `apply` receives as 0-d tensors. Neither saved nor trained."""
        return {}

    @abstractmethod
    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """New float32 tensors on CPU, every random number of them drawn from `generator`."""

    def why_not(self, anatomy: Anatomy) -> str:
        """Why it cannot stand on a backbone, or ''. Families say theirs in `misfit`."""
        try:
            self.numbers_in(anatomy)
        except ValueError as error:
            return str(error)
        return self.misfit(anatomy)

    def misfit(self, anatomy: Anatomy) -> str:
        """Why it cannot stand on a backbone, or ''."""
        missing = sorted(self.sites_on(anatomy) - anatomy.sites, key=list(Site).index)
        return f"it has no {' and no '.join(missing)}" if missing else ""

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """The masks it wants at a site in training; rates of 0 are not drawn, noise always is.

        The first axis of a mask may be the tokens of an image (`shape.tokens`, prompts included).
        """
        return {}

    def copies(self, site: Site) -> tuple[str, ...]:
        """The frozen tensors at a site that it trains copies of: some of `weight`, `bias`.

        A copy is a tensor `SITE.weight` of its block; where there is one, what the frozen network
        does at the site is done with it.
        """
        return ()

    @property
    def trains_copies(self) -> bool:
        """Whether it trains copies of frozen tensors at any site."""
        return any(self.copies(site) for site in self.sites)

    @property
    def num_prompts(self) -> int:
        """How many tokens `prompt` gives."""
        return 0

    def prompt(self, tensors: Tensors, *, masks: Tensors) -> Tensor | None:
        """Tokens `[P, D]` or `[B, P, D]` that are put behind the prefix tokens of a block's input.

        Those of the block before leave for them; where a block has none (None), they stay. For a
        family that stands at `prompt`; before the pooling, prompts leave.
        """
        return None

    @abstractmethod
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
        """The value that takes y's place at a site. Pure; see the module's text.

        `tensors`: this block's and the shared ones, and the constants, by their own names.
        `frozen`: tensors of the frozen module at the site. `masks`: empty in evaluation. `block`:
        where that is; a grid and the tokens before it are known, their number from x.
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
        block: BlockAnatomy,
    ) -> tuple[Tensor, Carry]:
        """As `apply`, for families that carry tensors from site to site; begins with none."""
        return self.apply(site, tensors, x, y, frozen=frozen, masks=masks, block=block), carry

    def why_unmerged(self, anatomy: Anatomy) -> str:
        """Why it cannot be folded into a backbone's weights, or ''.

        That a frozen layer lacks the bias that a merged one would need is found by itself.
        """
        return "" if self.mergeable else "what it adds is not linear in a frozen layer's input"

    def merge(self, site: Site, tensors: Tensors, frozen: Tensors) -> dict[str, Tensor]:
        """The frozen module's tensors with the adapter folded in, for `mergeable` families.

        Those that it trains copies of have been put in their place already.
        """
        raise TypeError(f"adapter '{self.name}' cannot be merged")


def masked(x: Tensor, masks: Tensors, name: str) -> Tensor:
    """x times a mask where the engine supplied one (training), else x."""
    return x * masks[name] if name in masks else x


def trunc_normal(*shape: int, std: float, generator: torch.Generator, cut: float = 2.0) -> Tensor:
    """Normal values cut at ±`cut`. At 2, timm's `trunc_normal_`: for small std plain normal."""
    values = torch.empty(shape)
    return torch.nn.init.trunc_normal_(values, std=std, a=-cut, b=cut, generator=generator)


def kaiming_uniform(outputs: int, inputs: int, *, generator: torch.Generator) -> Tensor:
    """A weight as PyTorch starts a linear layer's: uniform up to 1 / sqrt(inputs)."""
    weight = torch.empty(outputs, inputs)
    return torch.nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
