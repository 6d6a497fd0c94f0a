"""What a kind of backbone says of itself: how images become tokens, how blocks step, how it pools.

Inside a block only the residual sums are ours. Attention, MLP and norms are timm's own modules,
called as timm calls them; `sites.py` meets what they read.

Shape letters: B batch, C channels, H W image, N tokens, D width, P prompts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from idat_zoo.adapters.sites import EMBED, Place, Site
from idat_zoo.backbones.sites import Layout

Context = Tensor | None
"""What all blocks read beside the stream: rotations, or a bias that they share."""

ROLES = {
    "attn.qkv": Site.QKV,
    "attn.q_proj": Site.Q,
    "attn.k_proj": Site.K,
    "attn.v_proj": Site.V,
    "attn.proj": Site.PROJ,
    "mlp.fc1": Site.FC1,
    "mlp.fc1_x": Site.FC1,
    "mlp.fc1_g": Site.GATE,
    "mlp.fc2": Site.FC2,
}
"""The site of a linear layer of a block, by timm's name."""


def same(x: Tensor) -> Tensor:
    """x."""
    return x


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One residual branch: x + leave(scale(inner(norm(enter(x))))), or with the norm behind inner.

    `owners` are its linear layers. `layout` is that of what comes between enter and leave.
    """

    norm: nn.Module
    inner: Callable[[Tensor, Context], Tensor]
    owners: dict[Site, nn.Module]
    scale: Callable[[Tensor], Tensor] = same
    norm_last: bool = False
    attends: bool = False
    enter: Callable[[Tensor], Tensor] = same
    leave: Callable[[Tensor], Tensor] = same
    layout: Layout = "tokens"


@dataclass(frozen=True, eq=False)
class Kind(ABC):
    """A kind of backbone, on one that timm built.

    `timm_class` is the class of timm's that it walks, `block_classes` are those of its blocks.
    """

    body: Any  # a module of timm_class
    branches: tuple[tuple[Branch, ...], ...] = field(init=False, repr=False)

    title: ClassVar[str]
    timm_class: ClassVar[type[nn.Module]]
    block_classes: ClassVar[tuple[type[nn.Module], ...]]
    layout: ClassVar[Layout] = "tokens"
    takes_prompts: ClassVar[bool] = True
    takes_img_size: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "branches", tuple(map(self.block_branches, self.blocks)))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Kind":
        return type(self)(deepcopy(self.body, memo))

    @property
    def blocks(self) -> list[Any]:
        """timm's blocks, from first to last."""
        return list(self.body.blocks)

    @property
    def prefix(self) -> int:
        """How many tokens come before those of the grid."""
        return int(getattr(self.body, "num_prefix_tokens", 0))

    @property
    def patch_projection(self) -> nn.Module:
        """The convolution that embeds patches."""
        projection: nn.Module = self.body.patch_embed.proj
        return projection

    @property
    def final_norm(self) -> nn.Module:
        """The norm behind the last block, before or after the pooling."""
        body = self.body
        norm: nn.Module = body.norm if hasattr(body.norm, "weight") else body.fc_norm
        return norm

    def modules(self) -> dict[Place, nn.Module]:
        """The linear layers, norms and the patches' projection, by where they are met."""
        found = {
            Place(EMBED, Site.PATCH_EMBED): self.patch_projection,
            Place(len(self.branches), Site.FINAL_NORM): self.final_norm,
        }
        for i, branches in enumerate(self.branches):
            for number, branch in enumerate(branches, start=3 - len(branches)):
                found[Place(i, Site.NORM1 if number == 1 else Site.NORM2)] = branch.norm
                found |= {Place(i, site): module for site, module in branch.owners.items()}
        return found

    @abstractmethod
    def embed(self, images: Tensor) -> tuple[Tensor, Context]:
        """Images `[B, C, H, W]` to the stream that enters block 0, and what its blocks read."""

    @abstractmethod
    def block_branches(self, block: Any) -> tuple[Branch, ...]:
        """A block's branches, in their order: attention's and the MLP's, or one."""

    def pool(self, x: Tensor) -> Tensor:
        """The last block's output to features `[B, D]`, as timm's classifier is given them."""
        features: Tensor = self.body.forward_head(self.body.norm(x), pre_logits=True)
        return features

    def context_of(self, context: Context, block: int) -> Context:
        """What one block reads of the context."""
        return context

    def between(self, block: int, x: Tensor) -> Tensor:
        """What comes before a block that is none: a stage may begin with fewer, wider tokens."""
        return x

    def with_prompts(self, context: Context, count: int) -> Context:
        """The context where so many prompts stand behind the prefix."""
        return context

    def misfit(self) -> str:
        """Why the walk would not compute what timm computes, or ''."""
        if not len(self.blocks):
            return "it has no blocks"
        for block in self.blocks:
            if type(block) not in self.block_classes:
                return f"its block is a {type(block).__name__}"
        return ""


class Staged(Kind):
    """Stages of blocks on a grid that gets coarser and wider: what kinds of them share."""

    takes_prompts = False
    stages: ClassVar[str]  # timm's name of them

    @property
    def blocks(self) -> list[Any]:
        """Those of all stages."""
        return [block for stage in getattr(self.body, self.stages) for block in stage.blocks]

    def between(self, block: int, x: Tensor) -> Tensor:
        """A stage begins by making the grid coarser."""
        first = 0
        for stage in getattr(self.body, self.stages):
            if block == first:
                coarser: Tensor = stage.downsample(x)
                return coarser
            first += len(stage.blocks)
        return x


def owners(block: nn.Module, part: str) -> dict[Site, nn.Module]:
    """The linear layers of a block's `attn` or `mlp`, by their sites."""
    modules = dict(block.named_modules())
    return {
        site: modules[name]
        for name, site in ROLES.items()
        if name.startswith(f"{part}.") and getattr(modules.get(name), "weight", None) is not None
    }


def scaled(block: nn.Module, which: int) -> Callable[[Tensor], Tensor]:
    """LayerScale as a module (`ls1`) or as a vector (`gamma_1`), where there is any."""
    module, gamma = getattr(block, f"ls{which}", None), getattr(block, f"gamma_{which}", None)
    if module is not None:
        return module  # type: ignore[no-any-return]  # a module is called like a function
    return same if gamma is None else lambda x: getattr(block, f"gamma_{which}") * x


def attention_and_mlp(
    block: Any,
    *,
    attend: Callable[[Tensor, Context], Tensor],
    norm_last: bool = False,
    layout: Layout = "tokens",
) -> tuple[Branch, Branch]:
    """The two branches of a transformer's block."""
    shared: dict[str, Any] = {"norm_last": norm_last, "layout": layout}
    attention = Branch(
        norm=block.norm1,
        inner=attend,
        owners=owners(block, "attn"),
        scale=scaled(block, 1),
        attends=True,
        **shared,
    )
    mlp = Branch(
        norm=block.norm2,
        inner=lambda h, context: block.mlp(h),
        owners=owners(block, "mlp"),
        scale=scaled(block, 2),
        **shared,
    )
    return attention, mlp


def with_identity_rows(rope: Tensor, count: int) -> Tensor:
    """Rotations `[..., N, 2C]`, sines and then cosines, behind `count` rows that turn nothing."""
    sin, cos = rope.chunk(2, dim=-1)
    shape = (*sin.shape[:-2], count, sin.shape[-1])
    still = torch.cat([sin.new_zeros(shape), cos.new_ones(shape)], dim=-1)
    return torch.cat([still, rope], dim=-2)
