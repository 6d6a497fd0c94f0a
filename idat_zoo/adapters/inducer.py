"""Inducer-tuning: each query attends to one more key and value, which are made of it.

Chen et al., arXiv:2210.14469; code ychen-stat-ml/kernel-adapters d22e53f, without dropouts. In each
head, a query q has the key k = q + tanh(q A_k + a_k) B_k + b_k, with R_k = `key_rank` numbers
between (0: k = q). Its share is w = sigmoid(s q k - logsumexp of q's scores), biases and windows'
masks among the scores, as in the authors' NLG code. To what a head gives comes
w (tanh(q A_v + a_v) B_v + b_v), with R_v = `rank`: L (2 D + M) (R_k + R_v) + 2 L D numbers of M
heads. With `extend` = `heads`, B_v makes D numbers of each head's, which come behind the output
projection, where b_v is added once, without w; `shared` has one B_v for all heads. `query_rank` is
LoRA on the query, with a bias: s (B A x + b), s = `query_scale`.

All numbers start as fmod(normal, 2) / 100, those of LoRA as usual, B and b zero; so training does
not start from the frozen network, but with `zero_start=yes`, where B_v and b_v are zero.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.inducer_parts import hidden_of, inducer_of, query_change, shapes_of, share_of
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Carry, Created, Tensors, kaiming_uniform
from idat_zoo.option_words import InBlocks


class InducerOptions(InBlocks):
    """Options of Inducer-tuning."""

    rank: int = Field(default=4, ge=1, le=65536, description="rank R_v of the value")
    key_rank: int = Field(default=2, ge=0, le=65536, description="rank R_k of the key; 0: it is q")
    extend: Literal["none", "heads", "shared"] = Field(
        default="none", description="value behind the projection: not, by heads, or by one B_v"
    )
    query_rank: int = Field(default=0, ge=0, le=65536, description="rank of LoRA on q; 0: none")
    query_scale: float = Field(default=1.0, gt=0, description="factor on that LoRA")
    zero_start: bool = Field(default=False, description="start from the frozen network")


class Inducer(Adapter):
    """One more key and value for each query, made of the query itself."""

    name = "inducer"
    title = "Inducer-tuning"
    paper = "arXiv:2210.14469"
    year = 2022
    Options = InducerOptions
    stacks_over = frozenset({"rank", "key_rank", "query_scale", "zero_start"})
    options: InducerOptions

    @property
    def sites(self) -> frozenset[Site]:
        """Attention; and its output projection, where the value comes after it."""
        more = {Site.PROJ} if self.options.extend != "none" else set()
        return frozenset({Site.ATTENTION} | more)

    def sites_on(self, anatomy: Anatomy) -> frozenset[Site]:
        """Also the layer of the query, where LoRA changes it."""
        query = Site.Q if Site.Q in anatomy.sites else Site.QKV
        return self.sites | ({query} if self.options.query_rank else set())

    @property
    def constants(self) -> dict[str, float]:
        """The factor on LoRA."""
        return {"query_scale": self.options.query_scale}

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """Small normal numbers, folded at two deviations."""
        own, tensors = self.options, dict[str, Tensor]()
        for i, block in self.stands_in(anatomy):
            heads, width = block.num_heads, block.sites[Site.ATTENTION].inputs
            shapes = shapes_of(heads, width, own.rank, own.key_rank, own.extend)
            for name, shape in shapes.items():
                drawn = torch.empty(shape).normal_(generator=generator).fmod(2) / 100
                zero = own.zero_start and name.startswith("value.up")
                tensors[f"blocks.{i}.{name}"] = torch.zeros(shape) if zero else drawn
            if own.query_rank:
                down = kaiming_uniform(own.query_rank, block.width, generator=generator)
                tensors[f"blocks.{i}.query.down.weight"] = down
                tensors[f"blocks.{i}.query.up.weight"] = torch.zeros(width, own.query_rank)
                tensors[f"blocks.{i}.query.up.bias"] = torch.zeros(width)
        return Created(trainable=tensors)

    def apply(self, site: Site, tensors: Tensors, x: Tensor, y: Tensor, **more: Any) -> Tensor:
        """As `apply_carrying`."""
        return self.apply_carrying(site, tensors, x, y, {}, **more)[0]

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
        """At attention, [B, 3, M, N, C] and [B, M, N, C] -> [B, M, N, C]; else tokens."""
        if site is Site.PROJ:
            return y + carry["extension"], {}
        if site is not Site.ATTENTION:
            return y + query_change(tensors, x, outputs=y.shape[-1]), carry
        query, keys = x[:, 0], x[:, 1]
        share = share_of(query, keys, inducer_of(query, tensors), frozen).unsqueeze(-1)
        hidden, up = hidden_of(query, tensors, "value"), tensors["value.up.weight"]
        if self.options.extend == "none":
            return y + share * (hidden @ up + tensors["value.up.bias"]), carry
        extension = (share * hidden) @ up  # [B, M, N, D]
        return y, {"extension": extension.sum(1) + tensors["value.up.bias"]}
