"""The interception of a backbone's sites: how a walk offers them to an adapter.

A linear layer inside timm's attention or MLP is recognised by the identity of its weight, whichever
code calls it: BEiT, SwinV2 and some EVA read `qkv.weight` without calling its module, so hooks and
wrappers never fire. In this way timm's own code runs, with an adapter inside it.

Shape letters: B batch, C channels, H W grid, M heads, N tokens, D width, P prompts.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from idat_zoo.adapters.sites import Place, Site
from idat_zoo.adapters.tensors import Tensors

Layout = Literal["tokens", "grid", "channels"]
"""The layouts [B, N, D], [B, H, W, D] and [B, D, H, W]. Adapters see the first."""

Compute = Callable[[Tensor, Tensors], Tensor]
"""The frozen network's function of x at a site, with copies in place of some of its tensors."""

Offer = Callable[[Site, int, Tensor, Compute, Tensors], Tensor]
"""(site, block, x, compute, the frozen tensors that compute reads) -> the value that replaces y."""

WEIGHT_AT: Mapping[Any, int] = {F.linear: 1, F.conv2d: 1, F.layer_norm: 2}
"""The intercepted calls, with the index of the weight among their arguments; the bias follows."""


def _no_prompt(block: int, x: Tensor) -> Tensor | None:
    return None


class Visitor:
    """The receiver of a walk's offers, which may replace the values at some places.

    It only sees `places`, as tokens. `prompt` returns a block's prompts `[B, P, D]` for its stream,
    or None. With `keeps_tokens`, `tokens` are after the walk those `[B, N, D]` that left the last
    block. With `pooled_only`, the last block computes after its attention only the tokens that the
    pooling reads, where the kind of backbone knows them.
    """

    tokens: Tensor | None

    def __init__(
        self,
        places: Container[Place],
        offer: Offer,
        prompt: Callable[[int, Tensor], Tensor | None] = _no_prompt,
        *,
        keeps_tokens: bool = False,
        pooled_only: bool = False,
    ) -> None:
        assert not (keeps_tokens and pooled_only), "all tokens are kept, or the pooled ones alone"
        self.places, self.prompt, self.pooled_only = places, prompt, pooled_only
        self.keeps_tokens, self.tokens = keeps_tokens, None
        self._offer = offer

    def leaves_last_block(self, x: Tensor, layout: Layout) -> None:
        """Keep the tokens that leave the last block, where they are asked for."""
        if self.keeps_tokens:
            self.tokens = _to_tokens(x, layout)

    def value(
        self, site: Site, block: int, x: Tensor, y: Tensor, *, layout: Layout = "tokens"
    ) -> Tensor:
        """y, or the value that replaces it."""
        if Place(block, site) not in self.places:
            return y
        tokens = _to_tokens(y, layout)
        offered = self._offer(site, block, _to_tokens(x, layout), lambda x, copies: tokens, {})
        return _from_tokens(offered, layout, _grid(y, layout))

    def module(
        self, site: Site, block: int, x: Tensor, module: nn.Module, *, layout: Layout = "tokens"
    ) -> Tensor:
        """A frozen module's output for x, or the value that replaces it."""
        if Place(block, site) not in self.places:
            y: Tensor = module(x)
            return y

        def compute(x: Tensor, copies: Tensors) -> Tensor:
            y: Tensor = functional_call(module, dict(copies), (x,)) if copies else module(x)
            return y

        return self.call(site, block, x, compute, dict(module.named_parameters()), (layout, layout))

    def call(
        self,
        site: Site,
        block: int,
        x: Tensor,
        compute: Compute,
        frozen: Tensors,
        layouts: tuple[Layout, Layout],
    ) -> Tensor:
        """The value that replaces `compute(x)`; the layouts are those of x and of y."""
        before, after = layouts
        if before == after == "tokens":
            return self._offer(site, block, x, compute, frozen)
        grids = [_grid(x, before)]

        def on_tokens(x: Tensor, copies: Tensors) -> Tensor:
            y = compute(_from_tokens(x, before, grids[0]), copies)
            grids.append(_grid(y, after))
            return _to_tokens(y, after)

        offered = self._offer(site, block, _to_tokens(x, before), on_tokens, frozen)
        return _from_tokens(offered, after, grids[-1])

    def inside(
        self,
        block: int,
        owners: Mapping[Site, nn.Module],
        *,
        attends: bool = False,
        prompts: int = 0,
        prefix: int = 0,
        first_alone: bool = False,
    ) -> AbstractContextManager[object]:
        """Inside the block, intercept calls that read the owners' weights, and attention.

        `prompts` is the number of prompts after the `prefix` tokens, which biases of the scores
        lack. With `first_alone`, attention and its layer `proj` compute the first token alone.
        """
        weights = [
            (module.weight, site)
            for site, module in owners.items()
            if Place(block, site) in self.places and hasattr(module, "weight")  # not nn.Identity
        ]
        attention = Place(block, Site.ATTENTION) in self.places
        faster = first_alone or torch.is_grad_enabled()
        attends = attends and (attention or prompts > 0 or faster or _is_exporting())
        if not weights and not attends:
            return nullcontext()
        proj: Any = owners[Site.PROJ] if first_alone else None
        return Inside(
            self,
            block,
            weights,
            attends=attends,
            prompts=prompts,
            prefix=prefix,
            for_first=None if proj is None else proj.weight,
        )


class Inside(TorchFunctionMode):
    """Intercepts calls by the weight that they read, and calls of fused attention.

    With `for_first`, the weight of the attention's last layer, queries and that layer's inputs are
    cut to the first token.
    """

    def __init__(
        self,
        visitor: Visitor,
        block: int,
        weights: Sequence[tuple[Any, Site]],
        *,
        attends: bool,
        prompts: int,
        prefix: int,
        for_first: Any = None,
    ) -> None:
        super().__init__()
        self._for_first = for_first
        self._visitor, self._block, self._weights = visitor, block, weights
        self._attends, self._prompts, self._prefix = attends, prompts, prefix

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in WEIGHT_AT:
            place = WEIGHT_AT[func]
            weight = args[place] if len(args) > place else kwargs.get("weight")
            if self._for_first is not None and weight is self._for_first:
                args = (args[0][:, :1], *args[1:])
            for own, site in self._weights:
                if own is weight:
                    return self._meet(site, func, place, args, kwargs)
        if func is F.scaled_dot_product_attention and self._attends:
            return self._attend(*args, **kwargs)
        if func is Tensor.unbind and self._attends and _is_packed(*args, **kwargs):
            return _unpacked(args[0])
        return func(*args, **kwargs)

    def _meet(
        self, site: Site, func: Any, place: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        others = dict(kwargs)
        own = [*args[place : place + 2]]
        own += [others.pop(name, None) for name in ("weight", "bias")[len(own) :]]
        frozen = {n: t for n, t in zip(("weight", "bias"), own, strict=True) if t is not None}
        x = args[0] if args else others.pop("input")

        def compute(x: Tensor, copies: Tensors) -> Tensor:
            weight, bias = copies.get("weight", own[0]), copies.get("bias", own[1])
            y: Tensor = func(x, *args[1:place], weight, bias, *args[place + 2 :], **others)
            return y

        layouts: tuple[Layout, Layout] = ("tokens", "tokens")
        if func is F.conv2d:
            layouts = ("tokens" if site is Site.PATCH_EMBED else "channels", "channels")
        elif x.ndim == 4:
            layouts = ("grid", "grid")
        return self._visitor.call(site, self._block, x, compute, frozen, layouts)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **others: Any,
    ) -> Tensor:
        if self._for_first is not None:
            assert not is_causal, "the first token sees all others"
            return self._attend_first(
                query, key, value, attn_mask, dropout_p=dropout_p, scale=scale, **others
            )
        factor = scale or query.shape[-1] ** -0.5
        if attn_mask is not None and self._prompts and attn_mask.shape[-1] < key.shape[-2]:
            attn_mask = self._padded(attn_mask)

        def compute(x: Tensor, copies: Tensors) -> Tensor:
            if attn_mask is not None and _is_exporting():
                return _plain_attention(query, key, value, attn_mask, factor)
            plain = attn_mask is None and not is_causal and not dropout_p
            if plain and _is_faster_plain(query):
                return _plain_attention(query, key, value, None, factor)
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **others
            )

        same = query.shape == key.shape == value.shape
        if Place(self._block, Site.ATTENTION) not in self._visitor.places or not same:
            return compute(query, {})
        frozen = {"scale": query.new_tensor(factor)}
        if attn_mask is not None:
            frozen["bias"] = attn_mask
        x = torch.stack((query, key, value), dim=1)
        layouts: tuple[Layout, Layout] = ("tokens", "tokens")
        return self._visitor.call(Site.ATTENTION, self._block, x, compute, frozen, layouts)

    def _attend_first(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, **others: Any
    ) -> Tensor:
        """The first token's attention, expanded to all tokens, as many as timm's code expects."""
        if bias is not None:
            bias = bias[..., :1, :]
        first = F.scaled_dot_product_attention(query[..., :1, :], key, value, bias, **others)
        return first.expand(*query.shape[:-1], value.shape[-1])

    def _padded(self, bias: Tensor) -> Tensor:
        """[..., N, N] with rows and columns of zeros for the prompts after the prefix."""
        for axis in (-1, -2):
            start, end = bias.tensor_split([self._prefix], dim=axis)
            shape = list(bias.shape)
            shape[axis] = self._prompts
            bias = torch.cat([start, bias.new_zeros(shape), end], dim=axis)
        return bias


def _plain_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float
) -> Tensor:
    """Attention in separate products.

    ONNX has no form of fused attention with a bias.
    """
    scores = (query * scale) @ key.transpose(-2, -1)
    return (scores if bias is None else scores + bias).softmax(dim=-1) @ value


def _is_packed(x: Tensor, dim: int = 0) -> bool:
    """Whether x holds queries, keys and values `[3, B, M, N, C]`, that are unbound."""
    return x.ndim == 5 and dim == 0


def _unpacked(x: Tensor) -> tuple[Tensor, ...]:
    """The queries, keys and values `[B, M, N, C]` of `[3, B, M, N, C]`, as views.

    They are unbound in the order of memory, `[B, N, 3, M, C]`, so the backward pass writes their
    gradients where the layer `qkv` reads them, with one copy instead of two.
    """
    return tuple(own.transpose(1, 2) for own in x.permute(1, 3, 0, 2, 4).unbind(2))


FEW_TOKENS = 64
"""The number of tokens up to which torch's fused attention on a CPU is slower than its parts, with
the backward pass."""


def _is_faster_plain(query: Tensor) -> bool:
    """Whether separate products are faster than fused attention, for queries `[B, M, N, C]`."""
    few = query.shape[-2] <= FEW_TOKENS and query.device.type == "cpu"
    return few and query.requires_grad


def _is_exporting() -> bool:
    return torch.compiler.is_exporting()


def _grid(x: Tensor, layout: Layout) -> tuple[int, ...]:
    if layout == "grid":
        return tuple(x.shape[1:3])
    return tuple(x.shape[2:4]) if layout == "channels" else ()


def _to_tokens(x: Tensor, layout: Layout) -> Tensor:
    if layout == "grid":
        return x.flatten(1, 2)
    return x.flatten(2).transpose(1, 2) if layout == "channels" else x


def _from_tokens(x: Tensor, layout: Layout, grid: tuple[int, ...]) -> Tensor:
    if layout == "grid":
        return x.reshape(x.shape[0], *grid, x.shape[-1])
    if layout == "channels":  # a view whose strides say so of one image, too: convolutions look
        return x.reshape(x.shape[0], *grid, x.shape[-1]).permute(0, 3, 1, 2)
    return x
