"""The functions that make up Inducer-tuning: small networks per head, and the inducer's attention.

Shape letters: B batch, M heads, N tokens, C width of a head.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from idat_zoo.adapters.tensors import Tensors


def shapes_of(
    heads: int, width: int, rank: int, key_rank: int, extend: str
) -> dict[str, tuple[int, ...]]:
    """The tensor shapes of a block's two networks; at `key_rank` 0 there is no key network."""
    each = width // heads
    shapes: dict[str, tuple[int, ...]] = {
        "value.down.weight": (heads, each, rank),
        "value.down.bias": (heads, 1, rank),
        "value.up.weight": (heads, rank, each if extend == "none" else width),
        "value.up.bias": (heads, 1, each) if extend == "none" else (width,),
    }
    if extend == "shared":
        shapes["value.up.weight"] = (rank, width)
    if key_rank:
        shapes["key.down.weight"] = (heads, each, key_rank)
        shapes["key.down.bias"] = (heads, 1, key_rank)
        shapes["key.up.weight"] = (heads, key_rank, each)
        shapes["key.up.bias"] = (heads, 1, each)
    return shapes


def query_change(tensors: Tensors, x: Float[Tensor, "B N D"], *, outputs: int) -> Tensor:
    """LoRA on the query, with a bias; the rows of key and value in a fused qkv get zeros."""
    hidden = F.linear(x, tensors["query.down.weight"])
    change = F.linear(hidden, tensors["query.up.weight"], tensors["query.up.bias"])
    change = tensors["query_scale"] * change
    return F.pad(change, (0, outputs - change.shape[-1]))


def hidden_of(query: Float[Tensor, "B M N C"], tensors: Tensors, name: str) -> Tensor:
    """The hidden values of a network, computed from each head's queries: [B, M, N, rank]."""
    return torch.tanh(query @ tensors[f"{name}.down.weight"] + tensors[f"{name}.down.bias"])


def inducer_of(query: Float[Tensor, "B M N C"], tensors: Tensors) -> Float[Tensor, "B M N C"]:
    """The key that each query adds: computed by the key network, or the query itself."""
    if "key.up.bias" not in tensors:
        return query
    made = hidden_of(query, tensors, "key") @ tensors["key.up.weight"]
    return query + made + tensors["key.up.bias"]


def share_of(
    query: Float[Tensor, "B M N C"],
    keys: Float[Tensor, "B M N C"],
    inducer: Float[Tensor, "B M N C"],
    frozen: Tensors,
) -> Float[Tensor, "B M N"]:
    """The attention weight of a query's added key, in a softmax over it and all other keys."""
    scores = frozen["scale"] * query @ keys.mT
    if "bias" in frozen:
        scores = scores + frozen["bias"]
    own = frozen["scale"] * (query * inducer).sum(-1)
    return torch.sigmoid(own - scores.logsumexp(-1))
