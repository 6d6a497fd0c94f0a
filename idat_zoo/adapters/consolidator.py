"""Consolidator: a grouped linear layer beside each one of a block, with trained biases and norms.

arXiv:2305.00603, code THU-MIG/Consolidator 545d006: y becomes y + G x + c, with G block diagonal:
the g-th part of the outputs reads the g-th part of the inputs. With `shuffle`, the g-th part reads
every groups-th channel instead, beginning with the g-th. G and c start uniform within 0.001, so the
network is perturbed a little from step 0. It acts on qkv, proj, fc1 and fc2, on q, k and v where
they are separate layers, but not on the gate of a gated MLP. There are 384 groups, or fewer where
they do not divide the width: (12 D^2 / 384 + 9 D) L parameters in a plain ViT. The branch has a
drop path of its own, one draw per image and layer, 0 to 0.8 by task; our default is 0.

As released, the biases of those layers and all LayerNorms are trained as well, (13 L + 2) D
parameters more (`tune_frozen=no` leaves them out), and training never shuffles, though the README's
example does. It folds into W + G and b + c, except where a layer has no bias for c (DINOv3's qkv,
EVA-02 B's k).
"""

import math

import torch
from pydantic import Field
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.copies import LINEAR, NORMS, copies_of
from idat_zoo.adapters.layers import ROWS, Layer, LayersAdapter, parts_at
from idat_zoo.adapters.masks import Mask, masked
from idat_zoo.adapters.sites import Site, SiteShape
from idat_zoo.adapters.tensors import Created, Tensors
from idat_zoo.option_words import InBlocks

MOST_GROUPS = 384  # pairs of neighbouring channels at 768, as released


class ConsolidatorOptions(InBlocks):
    """Options of Consolidator."""

    groups: int = Field(default=0, ge=0, description="parts; 0: as many as divide, up to 384")
    shuffle: bool = Field(default=False, description="deal channels out among the groups")
    drop_path: float = Field(default=0.0, ge=0, lt=1, description="drop rate of each branch")
    tune_frozen: bool = Field(default=True, description="also train biases and LayerNorms")


class Consolidator(LayersAdapter):
    """Grouped linear layers beside all of a block's; biases and norms learn, too."""

    name = "consolidator"
    title = "Consolidator"
    paper = "arXiv:2305.00603"
    year = 2023
    Options = ConsolidatorOptions
    stacks_over = frozenset({"drop_path"})
    options: ConsolidatorOptions

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts that a block may have."""
        return "qkv", *ROWS, "proj", "fc1", "fc2"

    def parts_in(self, block: BlockAnatomy) -> tuple[str, ...]:
        """All parts that the block has: q, k and v are one layer or three."""
        qkv = ("qkv",) if Site.QKV in block.sites else ROWS
        return (*qkv, "proj", "fc1", "fc2") if block.num_heads else ("fc1", "fc2")

    def sites_on(self, anatomy: Anatomy) -> frozenset[Site]:
        """The sites of its layers and copies that the backbone has."""
        copied = NORMS | LINEAR if self.options.tune_frozen else frozenset()
        return super().sites_on(anatomy) | (copied & anatomy.sites_of_any)

    def groups_of(self, layer: Layer) -> int:
        """The number of groups of a layer."""
        common = math.gcd(layer.inputs, layer.outputs)
        return self.options.groups or max(g for g in range(1, MOST_GROUPS + 1) if common % g == 0)

    def misfit(self, anatomy: Anatomy) -> str:
        """Names a layer that the number of groups does not divide."""
        for layer in self.layers(anatomy):
            groups = self.groups_of(layer)
            if layer.inputs % groups or layer.outputs % groups:
                sizes = f"{layer.inputs} inputs and {layer.outputs} outputs"
                return f"{layer.name} of block {layer.block} has {sizes}, not groups of {groups}"
        return ""

    def copies(self, site: Site) -> tuple[str, ...]:
        """Both tensors of a norm, the bias of a linear layer."""
        if not self.options.tune_frozen:
            return ()
        return ("weight", "bias") if site in NORMS else ("bias",)

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """The branches, and the copies."""
        branches = super().create(anatomy, generator).trainable
        return Created(trainable=branches | copies_of(self, anatomy))

    def start(self, layer: Layer, generator: torch.Generator) -> dict[str, Tensor]:
        """Uniform within 0.001."""
        groups = self.groups_of(layer)
        weight = torch.empty(groups, layer.outputs // groups, layer.inputs // groups)
        tensors = {"group.weight": weight, "group.bias": torch.empty(layer.outputs)}
        return {n: t.uniform_(-1e-3, 1e-3, generator=generator) for n, t in tensors.items()}

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """Drop path of the branch at each layer."""
        mask = Mask(shape=(1, 1), rate=self.options.drop_path)
        return {f"{layer}.drop_path": mask for layer in parts_at(site)[:1]}

    def change(
        self, tensors: Tensors, x: Tensor, y: Tensor, frozen: Tensors, masks: Tensors
    ) -> Tensor:
        """y + G x + c."""
        weight = tensors["group.weight"]
        groups, _, inner = weight.shape
        if self.options.shuffle:
            x = x.unflatten(-1, (groups, inner)).mT.flatten(-2)
        grouped = torch.einsum("...gi,goi->...go", x.unflatten(-1, (groups, inner)), weight)
        return y + masked(grouped.flatten(-2) + tensors["group.bias"], masks, "drop_path")
