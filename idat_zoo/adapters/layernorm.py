"""LayerNorm tuning: weights and biases of the norms learn, from where they were pretrained.

What is trained are copies of norm1, norm2 and the last norm: (4 L + 2) D numbers in a plain ViT. It
starts as the frozen network, and is merged by putting them in their places. It has no authors' file
for vision transformers and is held to timm's own network with these parameters replaced.

Not trained are norms that are no site of a walk: those of queries and keys, inside attention or
inside an MLP (EVA-02's, ConvNeXt V2's), before the first block (CLIP's), behind the patches'
projection and between stages (Swin's, ConvNeXt's). Norms are never decayed.
"""

from typing import ClassVar

from idat_zoo.adapters.copies import NORMS, Copies
from idat_zoo.adapters.sites import Site


class LayerNorm(Copies):
    """Weights and biases of all norms."""

    name = "layernorm"
    title = "LayerNorm tuning"
    paper = ""
    year = 0
    sites: ClassVar = NORMS

    def copies(self, site: Site) -> tuple[str, ...]:
        """Both."""
        return "weight", "bias"
