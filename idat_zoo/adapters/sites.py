"""The sites of a backbone: the named places in its forward pass at which an adapter may act.

Shape letters: B batch, C channels, H W image, D width, N tokens, M heads.

At each site the walk (`backbones/walk.py`) offers a family the input x of that part of the network
and the part's own output y:

    site          x                          y
    patch_embed   images [B, 3, H, W]        the patches' embedding
    block_input   tokens entering the block  the same tokens
    prompt        (see `prompt`)             prompt tokens, inserted after the prefix tokens
    norm1         tokens entering the block  after the first norm
    qkv           after norm1                the fused projection, rows q | k | v
    q, k, v       after norm1                each projection, where they are not fused
    attention     q, k and v [B, 3, M, N, C] each head's attention output [B, M, N, C]
    proj          attention's heads, joined  their projection
    attn          after norm1                the attention branch, before it is added
    after_attn    tokens entering the block  the stream with the attention branch added
    norm2         the stream after attention after the second norm
    fc1, fc2      the linear layer's input   its output
    gate          fc1's input                the gate of a gated MLP, where it is a layer of its own
    mlp           after norm2                the MLP branch, before it is added
    after_mlp     the stream after attention the block's output
    final_norm    the last block's output    after the last norm
    features      pooled features [B, D]     the same features; the head comes next

Tokens are `[B, N, D]` in every backbone: each window is a row of its own inside windowed attention,
and the pixels of a feature map are tokens. Not every kind of backbone has every site. A block
without attention, such as ConvNeXt's, has the sites of its one branch, norm2 to after_mlp. In a
block whose norms come after the branches (SwinV2), `norm1` and `norm2` offer a branch's output and
the norm of it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Site(StrEnum):
    """A named place in the forward pass, in the order in which the pass reaches it."""

    PATCH_EMBED = "patch_embed"
    BLOCK_INPUT = "block_input"
    PROMPT = "prompt"
    NORM1 = "norm1"
    QKV = "qkv"
    Q = "q"
    K = "k"
    V = "v"
    ATTENTION = "attention"
    PROJ = "proj"
    ATTN = "attn"
    AFTER_ATTN = "after_attn"
    NORM2 = "norm2"
    FC1 = "fc1"
    GATE = "gate"
    FC2 = "fc2"
    MLP = "mlp"
    AFTER_MLP = "after_mlp"
    FINAL_NORM = "final_norm"
    FEATURES = "features"


AFTER_ATTENTION = frozenset(list(Site)[list(Site).index(Site.PROJ) : -2])
"""The sites of a block that come after its attention has mixed the tokens."""

EMBED = -1
"""The block number of the patch embedding; the sites after the last block have number L."""


class Place(NamedTuple):
    """A site of one block."""

    block: int
    site: Site


@dataclass(frozen=True, kw_only=True)
class SiteShape:
    """The shape of one image's values at a site: its tokens, and the input and output widths."""

    tokens: int
    inputs: int
    outputs: int
