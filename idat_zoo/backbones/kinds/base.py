"""The protocol of a kind of backbone: how it embeds images, steps through blocks and pools.

Only the residual sums inside a block are ours. Attention, MLP and norms are timm's own modules,
called as timm calls them; `sites.py` intercepts the layers inside them.

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
"""The input that all blocks share beside the stream: rotations, or a bias of the scores."""

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
"""The site of each linear layer of a block, by timm's name of it."""


def same(x: Tensor) -> Tensor:
    """x as it is."""
    return x


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One residual branch: x + leave(scale(inner(norm(enter(x))))), or with the norm after inner.

    `owners` are its linear layers. `layout` is the layout of tensors between enter and leave.
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
    """A kind of backbone: the parts of the forward pass of one timm network.

    `timm_class` is timm's class of such networks, `block_classes` are those of its blocks.
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
        """The number of tokens before the grid."""
        return int(getattr(self.body, "num_prefix_tokens", 0))

    @property
    def pools_first_token(self) -> bool:
        """Whether the pooling reads the first token alone, and nothing else mixes tokens after the
        last block's fused attention, which ends in a layer `proj`.
        """
        return False

    @property
    def patch_projection(self) -> nn.Module:
        """The convolution that embeds patches."""
        projection: nn.Module = self.body.patch_embed.proj
        return projection

    @property
    def final_norm(self) -> nn.Module:
        """The norm after the last block, before or after the pooling."""
        body = self.body
        norm: nn.Module = body.norm if hasattr(body.norm, "weight") else body.fc_norm
        return norm

    def modules(self) -> dict[Place, nn.Module]:
        """The linear layers, norms and patch projection, by their places."""
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
        """Map images `[B, C, H, W]` to the stream that enters block 0 and to the context."""

    @abstractmethod
    def block_branches(self, block: Any) -> tuple[Branch, ...]:
        """A block's branches in order: attention and MLP, or a single one."""

    def pool(self, x: Tensor) -> Tensor:
        """Pool the last block's output to features `[B, D]`, the input of timm's classifier."""
        features: Tensor = self.body.forward_head(self.body.norm(x), pre_logits=True)
        return features

    def context_of(self, context: Context, block: int) -> Context:
        """The part of the context that one block reads."""
        return context

    def between(self, block: int, x: Tensor) -> Tensor:
        """The stream that enters a block, after what lies between it and the block before.

        A stage may begin by merging tokens into fewer, wider ones.
        """
        return x

    def with_prompts(self, context: Context, count: int) -> Context:
        """The context for a number of prompts after the prefix tokens."""
        return context

    def misfit(self) -> str:
        """The reason why the walk would differ from timm's forward pass, or ''."""
        if not len(self.blocks):
            return "it has no blocks"
        for block in self.blocks:
            if type(block) not in self.block_classes:
                return f"its block is a {type(block).__name__}"
        return ""


class Staged(Kind):
    """A kind with stages of blocks on a grid that becomes coarser and wider."""

    takes_prompts = False
    stages: ClassVar[str]  # timm's name of them

    @property
    def blocks(self) -> list[Any]:
        """The blocks of all stages."""
        return [block for stage in getattr(self.body, self.stages) for block in stage.blocks]

    def between(self, block: int, x: Tensor) -> Tensor:
        """Downsample the grid where a stage begins."""
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
    """LayerScale, as a module (`ls1`) or a vector (`gamma_1`), where there is one."""
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
    """The two branches of a transformer block."""
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
    """Rotations `[..., N, 2C]`, sines then cosines, after `count` rows of no rotation."""
    sin, cos = rope.chunk(2, dim=-1)
    shape = (*sin.shape[:-2], count, sin.shape[-1])
    still = torch.cat([sin.new_zeros(shape), cos.new_ones(shape)], dim=-1)
    return torch.cat([still, rope], dim=-2)
