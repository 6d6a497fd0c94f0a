"""Prompts: P trained tokens of width D beside an image's own, as several families use them.

Shape letters: B batch, P prompts, D width.
"""

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.masks import Mask, masked
from idat_zoo.adapters.sites import EMBED, Site, SiteShape
from idat_zoo.adapters.tensors import Created, Tensors
from idat_zoo.values import Frozen


class PromptOptions(Frozen):
    """Options of prompts."""

    num_prompts: int = Field(default=10, ge=1, le=1000, description="prompts P")
    project: int = Field(default=0, ge=0, le=16384, description="their width; 0: the backbone's")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="drop rate on the prompts")


class Prompts(Adapter):
    """A family of prompts."""

    sites = frozenset({Site.PROMPT})
    stacks_over = frozenset({"dropout"})
    options: PromptOptions

    @property
    def num_prompts(self) -> int:
        """P."""
        return self.options.num_prompts

    def misfit(self, anatomy: Anatomy) -> str:
        """Refuses blocks that take no prompts, and more than four prompts per token of an image."""
        if Site.PROMPT not in anatomy.sites:
            return "its blocks take no prompts"
        count, tokens = self.num_prompts, anatomy.blocks[0].tokens
        return f"an image has {tokens} tokens, and num_prompts is {count}" * (count > 4 * tokens)

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """Uniform prompts, and their projection where there is one."""
        width, tensors = anatomy.blocks[0].width, dict[str, Tensor]()
        own = self.options.project or width
        patch = anatomy.frozen(Site.PATCH_EMBED, EMBED)["weight"][0].numel()
        bound = math.sqrt(6 / (patch + own))
        for i, _ in sorted(self.places_on(anatomy)):
            prompts = torch.empty(self.num_prompts, own)
            tensors[f"blocks.{i}.prompt"] = prompts.uniform_(-bound, bound, generator=generator)
        if self.options.project:
            weight, bias = torch.empty(width, own), torch.empty(width)
            weight.normal_(std=math.sqrt(2 / width), generator=generator)
            bias.uniform_(-(own**-0.5), own**-0.5, generator=generator)
            tensors |= {"shared.project.weight": weight, "shared.project.bias": bias}
        return Created(trainable=tensors)

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """Dropout on the prompts."""
        own = self.num_prompts, shape.outputs
        return {"dropout": Mask(shape=own, rate=self.options.dropout)}

    def prompt(self, tensors: Tensors, *, masks: Tensors) -> Tensor | None:
        """The prompts [P, D], or [B, P, D] with dropout."""
        prompts = tensors["prompt"]
        if self.options.project:
            prompts = F.linear(prompts, tensors["project.weight"], tensors["project.bias"])
        return masked(prompts, masks, "dropout")

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
        """y as it is: prompts change nothing else."""
        return y
