"""The adapter protocol: what a family of adapters declares, and the pure functions it consists of.

Shape letters: B batch, N tokens, D width, P prompts, T tasks.

The forward pass runs block by block (`backbones/walk.py`). At every site of the pass
(`adapters/sites.py` lists them) the family is given the site's input x and the frozen network's
output y there, and returns the value that replaces y. `places_on` says where it acts: at its
`sites`, in the blocks that its option `blocks` names, which every family that acts in blocks has.
A site before the first block belongs to the first block, and one after the last block to the last.
A backbone that lacks one of a family's sites cannot take the family (`Adapter.misfit`).

A family is written once, for one task and for many: `apply` is a pure function of tensors, x, y,
frozen weights and masks, of plain shapes `[B, N, D]`. A stack of T tasks runs the same function
under `torch.vmap`, over a leading axis of tensors, activations and masks, while the frozen weights
are shared. Tensors of different ranks are padded with zeros to the largest, and a zero in the
padded part of a tensor must add nothing. A tensor that only some of the tasks have is all zeros
for the others. `stacks_over` names the options in which the tasks of one pass may differ; `apply`
cannot read those options. Numbers among them, such as a scale, are `constants`, which arrive as 0-d
tensors. Tasks that differ in any other option run in separate passes.

Which part of the protocol serves which form of adapter:

* Prompts: `num_prompts` and `prompt`. The kind of backbone inserts them (without a rotation, with
  a relative bias of zero), or it has no such site.
* State carried from block to block (side networks, residual attention): `apply_carrying`.
* Tensors shared across blocks: named `shared.NAME`; every block receives them beside its own.
* Frozen random tensors (VeRA's projections): `Created.frozen`; they are saved with the adapter.
* Trained copies (biases, norms): `create` copies `anatomy.frozen(site, block)`, and `copies` names
  them; the backbone's layer then computes with the copies in place of its frozen tensors.
* A trained copy of any parameter of the backbone (full fine-tuning): tensors `body.NAME`.
* Changes inside attention (Inducer-tuning): the site `attention`, where `frozen` has the `scale` of
  the scores and the `bias` added to them, if there is one.
* Dense deltas and merging: `merge` returns the frozen module's new tensors at a linear layer or a
  norm; what acts between two layers is folded into the later one (`merges_at`). Prompts and
  nonlinear bottlenecks cannot be merged, and `why_unmerged` says so.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any, ClassVar

import torch
from pydantic import ValidationError
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.low_rank import WeightUpdate
from idat_zoo.adapters.masks import Mask
from idat_zoo.adapters.sites import EMBED, Place, Site, SiteShape
from idat_zoo.adapters.tensors import Carry, Created, Tensors
from idat_zoo.errors import RecipeError
from idat_zoo.option_words import ALL, chosen_blocks
from idat_zoo.recipe import describe_faults
from idat_zoo.values import Frozen


class Adapter(ABC):
    """One adapter family with its options. The module's docstring has the contract."""

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    year: ClassVar[int]
    Options: ClassVar[type[Frozen]]
    stacks_over: ClassVar[frozenset[str]] = frozenset()

    tokenwise: ClassVar[bool] = False
    """Whether after a block's attention it changes each token on its own, without the others.

    Then the last block computes only the tokens that are pooled, and x and y have only these.
    """

    lives_within: int = 2
    """The number of first steps within which every tensor of it must have received a gradient."""

    def __init__(self, **options: Any) -> None:  # values are checked by Options
        try:
            self.options = self.Options(**options)
        except ValidationError as error:
            raise RecipeError(describe_faults(error, where=f"adapter '{self.name}'")) from None

    @property
    def word(self) -> str:
        """The name by which the command line calls it."""
        return self.name

    @property
    @abstractmethod
    def sites(self) -> frozenset[Site]:
        """The sites at which it acts; a class attribute where no option changes them."""

    @property
    def stackable(self) -> bool:
        """Whether tasks may share a pass; may be a class attribute, as `mergeable` may."""
        return True

    @property
    def mergeable(self) -> bool:
        """Whether `merge` can fold it into the frozen weights."""
        return False

    @property
    def stack_key(self) -> Hashable:
        """What adapters that share a pass have in common: all options not in `stacks_over`."""
        return type(self), self.sites, self.options.model_dump_json(exclude=set(self.stacks_over))

    def sites_on(self, anatomy: Anatomy) -> frozenset[Site]:
        """The sites at which it acts on this backbone, where they depend on the backbone."""
        return self.sites

    @property
    def blocks(self) -> str:
        """The blocks in which it acts, as its option `blocks` names them."""
        return getattr(self.options, "blocks", ALL)

    def numbers_in(self, anatomy: Anatomy) -> tuple[int, ...]:
        """The numbers of those blocks, ascending. Raises: ValueError for a missing block."""
        return chosen_blocks(self.blocks, anatomy.depth)

    def stands_in(self, anatomy: Anatomy) -> list[tuple[int, BlockAnatomy]]:
        """Those blocks with their numbers, for `create`."""
        return [(i, anatomy.blocks[i]) for i in self.numbers_in(anatomy)]

    def places_on(self, anatomy: Anatomy) -> frozenset[Place]:
        """All places that it changes: its sites in its blocks, and at the ends beside them."""
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
        """The places whose weights `merge` changes.

        They differ from `places_on` where a change of a norm's output is folded into the next
        layers.
        """
        return self.places_on(anatomy)

    @property
    def constants(self) -> dict[str, float]:
        """Numbers that `apply` receives as 0-d tensors. They are neither saved nor trained."""
        return {}

    @abstractmethod
    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """New float32 tensors on the CPU, with every random number drawn from `generator`."""

    def why_not(self, anatomy: Anatomy) -> str:
        """The reason why it does not fit a backbone, or ''. Families override `misfit`."""
        try:
            self.numbers_in(anatomy)
        except ValueError as error:
            return str(error)
        return self.misfit(anatomy)

    def misfit(self, anatomy: Anatomy) -> str:
        """The reason why it does not fit a backbone, or ''."""
        missing = sorted(self.sites_on(anatomy) - anatomy.sites, key=list(Site).index)
        return f"it has no {' and no '.join(missing)}" if missing else ""

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """The masks that it needs at a site in training.

        The engine skips masks of rate 0, but always draws noise. The first axis of a mask may be
        the tokens of an image (`shape.tokens`, prompts included).
        """
        return {}

    def copies(self, site: Site) -> tuple[str, ...]:
        """The frozen tensors at a site of which it trains copies: some of `weight`, `bias`.

        A copy is a tensor `SITE.weight` or `SITE.bias` of its block, and replaces the frozen one in
        the computation of the site.
        """
        return ()

    @property
    def trains_copies(self) -> bool:
        """Whether it trains copies of frozen tensors at any site."""
        return any(self.copies(site) for site in self.sites)

    @property
    def num_prompts(self) -> int:
        """The number of tokens that `prompt` returns."""
        return 0

    def prompt(self, tensors: Tensors, *, masks: Tensors) -> Tensor | None:
        """Tokens `[P, D]` or `[B, P, D]`, inserted after the prefix tokens of a block's input.

        They replace the prompts of the block before, which stay where a block has none (None). This
        is for families with the site `prompt`. Prompts are removed before the pooling.
        """
        return None

    def weight_update(self, site: Site, tensors: Tensors) -> WeightUpdate | None:
        """The low-rank update of the weight of the linear layer at a site.

        A family returns it where it is all that `apply` does there without masks. The layer is then
        computed with its updated weight, and `apply` is not called. None otherwise.
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
        """The value that replaces y at a site. Pure; the module's docstring has the contract.

        `tensors`: this block's tensors, the shared ones and the constants, by their own names.
        `frozen`: the tensors of the frozen module at the site. `masks`: empty in evaluation.
        `block`: the block's anatomy. Take the number of tokens from x, as it includes prompts.
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
        """As `apply`, for families that carry tensors from site to site. `carry` starts empty."""
        return self.apply(site, tensors, x, y, frozen=frozen, masks=masks, block=block), carry

    def why_unmerged(self, anatomy: Anatomy) -> str:
        """The reason why it cannot be folded into a backbone's weights, or ''.

        Callers check on their own whether a frozen layer lacks a bias that the merged one needs.
        """
        return "" if self.mergeable else "what it adds is not linear in a frozen layer's input"

    def merge(self, site: Site, tensors: Tensors, frozen: Tensors) -> dict[str, Tensor]:
        """The frozen module's tensors with the adapter folded in, for `mergeable` families.

        `frozen` already has the trained copies in place of the originals.
        """
        raise TypeError(f"adapter '{self.name}' cannot be merged")
