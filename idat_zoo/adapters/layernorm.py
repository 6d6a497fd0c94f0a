"""LayerNorm tuning: training of the norms' weights and biases, from their pretrained values.

It trains copies of norm1, norm2 and the last norm: (4 L + 2) D parameters in a plain ViT. It starts
as the frozen network, and is merged by replacing the frozen norms with the copies. There is no
authors' code for vision transformers; it is tested against timm's own network with these parameters
replaced.

Norms that are not at a site of the walk are not trained: those of queries and keys, inside
attention or inside an MLP (EVA-02's, ConvNeXt V2's), before the first block (CLIP's), after the
patch projection and between stages (Swin's, ConvNeXt's). Norms are never decayed.
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
        """Weight and bias."""
        return "weight", "bias"
