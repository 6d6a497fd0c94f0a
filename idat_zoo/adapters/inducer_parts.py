"""What Inducer-tuning is made of: small networks in each head, and an inducer's share of attention.

Shape letters: B batch, M heads, N tokens, C numbers of a head.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from idat_zoo.adapters.tensors import Tensors


def shapes_of(
    heads: int, width: int, rank: int, key_rank: int, extend: str
) -> dict[str, tuple[int, ...]]:
    """The shapes of a block's two networks; the key's is not there where its rank is 0."""
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
    """LoRA on the query, with a bias; the key's and the value's rows get nothing."""
    hidden = F.linear(x, tensors["query.down.weight"])
    change = F.linear(hidden, tensors["query.up.weight"], tensors["query.up.bias"])
    change = tensors["query_scale"] * change
    return F.pad(change, (0, outputs - change.shape[-1]))


def hidden_of(query: Float[Tensor, "B M N C"], tensors: Tensors, name: str) -> Tensor:
    """What is inside a network, of a query's numbers in each head: [B, M, N, rank]."""
    return torch.tanh(query @ tensors[f"{name}.down.weight"] + tensors[f"{name}.down.bias"])


def inducer_of(query: Float[Tensor, "B M N C"], tensors: Tensors) -> Float[Tensor, "B M N C"]:
    """Each query's own key: itself, where no network makes one."""
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
    """The share of a query's own key beside all keys, as of a softmax over both."""
    scores = frozen["scale"] * query @ keys.mT
    if "bias" in frozen:
        scores = scores + frozen["bias"]
    own = frozen["scale"] * (query * inducer).sum(-1)
    return torch.sigmoid(own - scores.logsumexp(-1))
