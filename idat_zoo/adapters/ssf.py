"""SSF: a trained scale and shift, y * gamma + beta, of the features after each operation.

arXiv:2210.08823, code dongzelian/SSF e94e0e7. It acts after the patch projection, both norms, every
linear layer of a block (after fc1, before the activation) and the last norm: (22 L + 4) D
parameters in a plain ViT. gamma starts normal around 1, beta around 0, both of std 0.02, so the
network is perturbed from step 0.

Each pair folds into the layer or norm before it: W becomes diag(gamma) W, b becomes gamma b + beta.
The authors released no merge. Where a layer has no bias for beta (DINOv3's qkv, EVA-02 B's k, the
patch projection of CLIP), it cannot be merged.

Where features are pooled before the last norm, ours acts after that norm, theirs before pooling and
norm, where it could not be folded in. A block without attention has the pairs of its one branch;
the authors' ConvNeXt has more of them, after depthwise convolutions and between stages. Tensors of
one axis are never decayed, in theirs and ours: none of these is.
"""

from typing import ClassVar

import torch
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.copies import LINEAR, NORMS
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Created, Tensors, home_of
from idat_zoo.option_words import InBlocks


class SSFOptions(InBlocks):
    """Options of SSF."""


class SSF(Adapter):
    """Scales and shifts of all features: of patches, linear layers and norms."""

    name = "ssf"
    title = "SSF"
    paper = "arXiv:2210.08823"
    year = 2022
    tokenwise = True
    Options = SSFOptions
    options: SSFOptions
    sites: ClassVar = NORMS | LINEAR | {Site.PATCH_EMBED}
    mergeable = True

    def sites_on(self, anatomy: Anatomy) -> frozenset[Site]:
        """Those of its sites that the backbone has."""
        return self.sites & anatomy.sites_of_any

    def misfit(self, anatomy: Anatomy) -> str:
        """'' always: every block has some of its sites."""
        return ""

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """Scales normal around 1, shifts around 0, of std 0.02."""
        tensors: dict[str, Tensor] = {}
        for block, site in sorted(self.places_on(anatomy)):
            width = anatomy.shape(site, block).outputs
            for name, mean in (("scale", 1.0), ("shift", 0.0)):
                values = torch.empty(width).normal_(mean, 0.02, generator=generator)
                tensors[f"{home_of(block, anatomy.depth)}{site}.{name}"] = values
        return Created(trainable=tensors)

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
        """y * gamma + beta."""
        return y * tensors[f"{site}.scale"] + tensors[f"{site}.shift"]

    def merge(self, site: Site, tensors: Tensors, frozen: Tensors) -> dict[str, Tensor]:
        """diag(gamma) W and gamma b + beta, for a linear layer or a norm."""
        scale, weight = tensors[f"{site}.scale"], frozen["weight"]
        return {
            "weight": scale.view(-1, *[1] * (weight.ndim - 1)) * weight,
            "bias": scale * frozen.get("bias", torch.zeros_like(scale)) + tensors[f"{site}.shift"],
        }
