"""BitFit: training of the biases, from their pretrained values.

arXiv:2106.10199, for vision transformers. It trains copies of the biases of linear layers, of norms
and of the patch projection: (11 L + 2) D parameters in a plain ViT. It starts as the frozen
network, and is merged by replacing the frozen biases with the copies. There is no authors' code for
these networks; it is tested against timm's own network with these parameters replaced.

Some of timm's networks (BEiT, SwinV2, some EVA) have a bias for q and one for v but none for k:
those two are trained, as they are. Biases that are not at a site of the walk are not trained: of
norms of queries and keys, inside attention or inside an MLP, before the first block and between
stages, and of ConvNeXt's depthwise convolutions. Biases are never decayed.
"""

from typing import ClassVar

import torch
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.copies import LINEAR, NORMS, Copies, copies_of
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Created, Tensors


class BitFit(Copies):
    """All biases: of linear layers, norms and the patches' projection."""

    name = "bitfit"
    title = "BitFit"
    paper = "arXiv:2106.10199"
    year = 2021
    sites: ClassVar = NORMS | LINEAR | {Site.PATCH_EMBED}

    def copies(self, site: Site) -> tuple[str, ...]:
        """The bias."""
        return ("bias",)

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """The copies; where timm joins a qkv bias from those of q and v, copies of those two."""
        copies = copies_of(self, anatomy)
        for i in self.numbers_in(anatomy):
            joined = any(name.endswith("attn.q_bias") for name in anatomy.parameters(i))
            if joined and f"blocks.{i}.qkv.bias" in copies:
                q, _, v = copies.pop(f"blocks.{i}.qkv.bias").chunk(3)
                copies |= {f"blocks.{i}.query.bias": q.clone(), f"blocks.{i}.value.bias": v.clone()}
        return Created(trainable=copies)

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
        """y, with copies in place of the frozen parts of a bias that timm joins from parts."""
        if "query.bias" not in tensors or site is not Site.QKV:
            return y
        return y + (self.merge(site, tensors, frozen)["bias"] - frozen["bias"])

    def merge(self, site: Site, tensors: Tensors, frozen: Tensors) -> dict[str, Tensor]:
        """The frozen tensors, which already include the copies."""
        if "query.bias" not in tensors or site is not Site.QKV:
            return dict(frozen)
        _, k, _ = frozen["bias"].chunk(3)
        return {**frozen, "bias": torch.cat([tensors["query.bias"], k, tensors["value.bias"]])}
