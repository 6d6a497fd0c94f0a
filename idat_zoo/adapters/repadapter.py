"""RepAdapter: a linear bottleneck on what enters attention and the MLP, made to be merged.

arXiv:2302.08106, code luogen1996/RepAdapter 360992f: u' = u + s (B (A u + a) + b), u the output of
norm1 (before qkv) and of norm2 (before fc1). B is in groups: the g-th part of the outputs reads the
g-th part of the hidden features. A is Xavier-uniform, all else 0, so training starts from the
frozen network; s also scales the biases. D R + R + D R / groups + D numbers at each norm, 2 L of
them. A dropout of 0.1 stands between A and B, fixed in their code, an option in ours. The authors
choose s in 0.1, 0.5, 1, 5 and 10 by task; ours is 1, their code's default.

It folds into qkv and fc1: W P and b + W c with P = I + s B A and c = s (B a + b). Their merge is
right for two groups and fails with an error for one; and their width is fixed at 768. Ours is right
for any. It is refused where norms come behind a branch (SwinV2), and its merge where windows are
padded. ConvNeXt has it before its MLP alone; theirs also before the depthwise convolution, where it
cannot be merged. Their block leaves LayerScale out; ours keeps it.
"""

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.masks import Mask, masked
from idat_zoo.adapters.normed import NormedAdapter
from idat_zoo.adapters.sites import Site, SiteShape
from idat_zoo.adapters.tensors import Created, Tensors
from idat_zoo.option_words import InBlocks


class RepAdapterOptions(InBlocks):
    """Options of RepAdapter."""

    rank: int = Field(default=8, ge=1, description="inner width R")
    groups: int = Field(default=2, ge=1, description="groups of the second projection")
    scale: float = Field(default=1.0, gt=0, description="factor s on the adapter's output")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="drop rate on the bottleneck")
    mlp: bool = Field(default=True, description="also before the MLP, not before attention alone")

    @model_validator(mode="after")
    def _check(self) -> "RepAdapterOptions":
        if self.rank % self.groups:
            raise ValueError(f"rank {self.rank} does not divide into {self.groups} groups")
        return self


class RepAdapter(NormedAdapter):
    """Linear bottlenecks before attention and the MLP, which merge into the layers behind."""

    name = "repadapter"
    title = "RepAdapter"
    paper = "arXiv:2302.08106"
    year = 2023
    Options = RepAdapterOptions
    stacks_over = frozenset({"rank", "scale", "dropout"})
    options: RepAdapterOptions

    @property
    def sites(self) -> frozenset[Site]:
        """Both norms, or norm1 alone."""
        return super().sites if self.options.mlp else frozenset({Site.NORM1})

    @property
    def constants(self) -> dict[str, float]:
        """The scale."""
        return {"scale": self.options.scale}

    def misfit(self, anatomy: Anatomy) -> str:
        """Also names a width that the groups do not divide."""
        groups = self.options.groups
        odd = [b.width for _, b in self.stands_in(anatomy) if b.width % groups]
        return (
            f"its width {odd[0]} does not divide into {groups} groups"
            if odd
            else (super().misfit(anatomy))
        )

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """A Xavier-uniform, all else 0; groups come first, so that ranks are padded in each."""
        groups, rank = self.options.groups, self.options.rank
        inner = rank // groups
        tensors: dict[str, Tensor] = {}
        for i, site in sorted(self.places_on(anatomy)):
            width, at = anatomy.blocks[i].width, f"blocks.{i}.{site}"
            down = torch.nn.init.xavier_uniform_(torch.empty(rank, width), generator=generator)
            tensors[f"{at}.down.weight"] = down.view(groups, inner, width)
            tensors[f"{at}.down.bias"] = torch.zeros(groups, inner)
            tensors[f"{at}.up.weight"] = torch.zeros(groups, width // groups, inner)
            tensors[f"{at}.up.bias"] = torch.zeros(width)
        return Created(trainable=tensors)

    def masks(self, site: Site, shape: SiteShape) -> dict[str, Mask]:
        """Dropout on the bottleneck."""
        groups = self.options.groups
        inner = (shape.tokens, groups, self.options.rank // groups)
        return {"dropout": Mask(shape=inner, rate=self.options.dropout)}

    def change(self, tensors: Tensors, u: Tensor, masks: Tensors) -> Tensor:
        """u + s (B (A u + a) + b)."""
        down, up = tensors["down.weight"], tensors["up.weight"]
        hidden = F.linear(u, down.flatten(0, 1), tensors["down.bias"].flatten())
        hidden = masked(hidden.unflatten(-1, down.shape[:2]), masks, "dropout")
        parts = torch.einsum("...gr,gcr->...gc", hidden, up)
        return u + tensors["scale"] * (parts.flatten(-2) + tensors["up.bias"])
