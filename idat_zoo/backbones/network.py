"""The network: a frozen backbone with an adapter and a new classification head.

Shape letters: B batch, C channels, H W image, D width, K classes.
"""

from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.low_rank import WeightUpdate, updated_linear
from idat_zoo.adapters.masks import Mask
from idat_zoo.adapters.sites import AFTER_ATTENTION, Place, Site, SiteShape
from idat_zoo.adapters.tensors import Carry, Created, Tensors, home_of
from idat_zoo.backbones.frozen import FrozenBackbone
from idat_zoo.backbones.named_tensors import NamedTensors
from idat_zoo.backbones.sites import Compute, Visitor
from idat_zoo.backbones.step_masks import by_rows, draw_mask, mask_prefix, masks_at, of_first_tokens
from idat_zoo.backbones.walk import Holder, Partway, begin, features
from idat_zoo.distillation.base import Output, Outputs
from idat_zoo.randomness import Draws
from idat_zoo.values import Rgb

Logits = Float[Tensor, "B K"]
Features = Float[Tensor, "B D"]
Images = UInt8[Tensor, "B C H W"] | Float[Tensor, "B C H W"]
DROP_PATH = "drop_path"


class Network(nn.Module):
    """A frozen backbone with an adapter and a head: images `[B, 3, H, W]` to logits `[B, K]`.

    `mean` and `std` normalise uint8 images scaled to [0, 1]; float images must be normalised
    already. `class_names` are the names of the K classes in order, or empty if they are not known.
    `mixes` tells whether a network of this class can share a pass over its backbone with others
    (`stack.MixedNetwork`). `pooled_only` says whether the last block computes, after its attention,
    only the tokens that are pooled: the features are the same, with less work.
    """

    class_names: tuple[str, ...] = ()
    mixes: ClassVar[bool] = True

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: FrozenBackbone,
        adapter: Adapter,
        created: Created,
        head: nn.Module,
        *,
        mean: Rgb,
        std: Rgb,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.body = backbone.body
        self._holder = (Holder(self.body),)  # a tuple hides it, or its parameters would count twice
        self.adapter = adapter
        self.kind = backbone.kind
        self.anatomy = backbone.anatomy
        self.places = adapter.places_on(backbone.anatomy)
        self.first_block = min(adapter.numbers_in(backbone.anatomy))
        self.pooled_only = _takes_pooled_only(adapter, self.places, backbone)
        self.adapter_tensors = NamedTensors(created)
        self.head = head
        constants = {name: torch.tensor(value) for name, value in adapter.constants.items()}
        self.constants = NamedTensors(Created(trainable={}, frozen=constants))
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        assert isinstance(self.head, nn.Linear)
        return self.head.out_features

    def trainable(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name: `adapter.…` and `head.…`."""
        adapter = self.adapter_tensors.tensors()
        learn = {
            f"adapter.{name}": tensor
            for name, tensor in adapter.items()
            if isinstance(tensor, nn.Parameter)
        }
        return learn | {f"head.{name}": tensor for name, tensor in self.head.named_parameters()}

    def published(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint stores: the adapter's, frozen ones too, and the head's."""
        return published_names(self.adapter_tensors.tensors(), self.head)

    def fill(self, tensors: Tensors) -> None:
        """Copy the values of such tensors, as `published` names them, into this network."""
        with torch.no_grad():
            for name, tensor in self.published().items():
                tensor.copy_(tensors[name])

    def local(self, block: int) -> dict[str, Tensor]:
        """The tensors for the adapter's `apply` in a block: the block's, the shared, the constants.

        Block -1 is the patch embedding, and the block number equal to the depth is the pooling.
        """
        own = home_of(block, self.anatomy.depth)
        return self.adapter_tensors.under(own, "shared.") | self.constants.tensors()

    def shape(self, site: Site, block: int) -> SiteShape:
        """The shape of one image's tokens at a site, with the adapter's prompts included."""
        shape = self.anatomy.shape(site, block)
        if site in self.anatomy.ends:
            return shape
        return replace(shape, tokens=shape.tokens + self.adapter.num_prompts)

    def shape_of(self, site: Site, block: int, x: Tensor) -> SiteShape:
        """The shape at a site, with the tokens of its input x: all, or the pooled ones alone."""
        shape, last = self.shape(site, block), block == self.anatomy.depth - 1
        if self.pooled_only and last and site in AFTER_ATTENTION:
            return replace(shape, tokens=x.shape[1])
        return shape

    def draw_masks(self, batch: int, *, drop_path: float, draws: Draws) -> dict[str, Tensor]:
        """Draw all random masks of one training step for a batch, before the forward pass.

        The drop path rate rises linearly from 0 at the first block to `drop_path` at the last. It
        is 0 in the blocks before the first one with an adapter.
        """
        device = self.mean.device
        masks: dict[str, Tensor] = {}
        if drop_path > 0:
            depth, branches = self.anatomy.depth, self.anatomy.blocks[0].branches
            rates = self._drop_path_rates(drop_path).view(-1, 1, 1)
            masks[DROP_PATH] = draws.keep(DROP_PATH, rates, depth, branches, batch)
        for key, mask in self._declared_masks(drop_path):
            masks[key] = draw_mask(key, mask, batch, draws)
        masks = {name: mask.to(self.mean.dtype) for name, mask in masks.items()}
        if device.type == "cuda":  # a copy from pinned memory does not make the host wait
            masks = {name: mask.pin_memory() for name, mask in masks.items()}
        return {name: mask.to(device, non_blocking=True) for name, mask in masks.items()}

    def _drop_path_rates(self, drop_path: float) -> Tensor:
        rates = torch.linspace(0, drop_path, self.anatomy.depth)
        rates[: self.first_block] = 0
        return rates

    def _declared_masks(self, drop_path: float) -> Iterable[tuple[str, Mask]]:
        rates = self._drop_path_rates(drop_path).tolist()
        for block, site in sorted(self.places):
            for name, mask in self.adapter.masks(site, self.shape(site, block)).items():
                rate = rates[block] if mask.with_drop_path else mask.rate
                if rate > 0 or mask.noise:
                    yield f"{mask_prefix(site, block)}{name}", replace(mask, rate=rate)

    def move_own(self, device: torch.device) -> None:
        """Move everything except the backbone, which other networks may share."""
        for part in (self.adapter_tensors, self.constants, self.head):
            part.to(device)
        self.mean, self.std = self.mean.to(device), self.std.to(device)

    def normalise(self, images: Images) -> Float[Tensor, "B C H W"]:
        """Normalise uint8 images for the backbone; float images are returned unchanged."""
        if images.dtype == torch.uint8:
            return (images.to(self.mean.dtype) / 255 - self.mean) / self.std
        return images

    def features(self, start: Images | Partway, masks: Tensors | None = None) -> Features:
        """The pooled features `[B, D]` of images, or of a forward pass resumed from `Partway`."""
        return self._walked(start, masks)[0]

    def _walked(
        self, start: Images | Partway, masks: Tensors | None, *, keeps_tokens: bool = False
    ) -> tuple[Features, Tensor | None]:
        """The pooled features, and with `keeps_tokens` the tokens that leave the last block."""
        masks = masks or {}
        carry: Carry = {}

        def offer(site: Site, block: int, x: Tensor, compute: Compute, frozen: Tensors) -> Tensor:
            nonlocal carry
            local, own = self.local(block), self.masks_of(masks, site, block, x)
            update = None if own else self.adapter.weight_update(site, local)
            if update is not None and adds_to_weights(frozen, update):
                return updated_linear(x, frozen["weight"], frozen.get("bias"), update)
            y, carry = self.adapter.apply_carrying(
                site,
                local,
                x,
                compute(x, copies_at(self.adapter, site, local)),
                carry,
                frozen=frozen,
                masks=by_rows(own, x),
                block=self.anatomy.block(block),
            )
            return y

        def prompt(block: int, x: Tensor) -> Tensor | None:
            tokens = self.prompt(block, masks_at(masks, Site.PROMPT, block))
            return None if tokens is None else tokens.expand(x.shape[0], -1, -1)

        if not isinstance(start, Partway):
            start = begin(self.normalise(start))
        visitor = Visitor(
            self.places,
            offer,
            prompt,
            keeps_tokens=keeps_tokens,
            pooled_only=self.pooled_only and not keeps_tokens,
        )
        (holder,) = self._holder
        pooled = holder.having(
            self.body_copies(),
            lambda: features(self.kind, start, visitor, masks.get(DROP_PATH)),
        )
        return pooled, visitor.tokens

    def masks_of(self, masks: Tensors, site: Site, block: int, x: Tensor) -> dict[str, Tensor]:
        """A step's masks at a site of a block, for the tokens of its input x."""
        own, shape = masks_at(masks, site, block), self.shape_of(site, block, x)
        if not own or shape == self.shape(site, block):
            return own
        return of_first_tokens(own, self.adapter.masks(site, shape))

    def prompt(self, block: int, masks: Tensors) -> Tensor | None:
        """The prompt tokens that the adapter inserts before a block, or None."""
        if Place(block, Site.PROMPT) not in self.places:
            return None
        return self.adapter.prompt(self.local(block), masks=masks)

    def body_copies(self) -> dict[str, Tensor]:
        """The trained copies that replace parameters of the backbone, by timm's names."""
        return self.adapter_tensors.under("body.")

    def outputs(
        self, start: Images | Partway, masks: Tensors | None, reads: Container[Output]
    ) -> Outputs:
        """The logits of images `[B, 3, H, W]` and the other outputs in `reads`.

        `start` may also be a forward pass to resume. `masks` are those of `draw_masks` in training,
        and None otherwise.
        """
        pooled, tokens = self._walked(start, masks, keeps_tokens=Output.TOKENS in reads)
        kept = pooled if Output.FEATURES in reads else None
        return Outputs(self.head(pooled), kept, tokens)

    def forward(self, start: Images | Partway, masks: Tensors | None = None) -> Logits:
        """The logits `[B, K]`; the arguments are those of `outputs`."""
        return self.outputs(start, masks, ()).logits

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Network":
        """As in nn.Module; the constants are set anew, so that repeated casts do not round them."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in self.adapter.constants.items():
            self.constants.tensors()[name].fill_(value)
        return self

    def train(self, mode: bool = True) -> "Network":
        """Set the mode; the backbone stays in evaluation mode, since masks bring all randomness."""
        super().train(mode)
        self.body.eval()
        return self


def rows_of_masks(masks: Tensors, rows: slice) -> dict[str, Tensor]:
    """The masks of `draw_masks` for some images of their batch."""
    return {
        name: mask[..., rows] if name == DROP_PATH else mask[rows] for name, mask in masks.items()
    }


def copies_at(adapter: Adapter, site: Site, local: Tensors) -> dict[str, Tensor]:
    """The trained copies of frozen tensors at a site, by the names of the frozen tensors."""
    return {
        name: local[f"{site}.{name}"] for name in adapter.copies(site) if f"{site}.{name}" in local
    }


def published_names(adapter: Tensors, head: nn.Module) -> dict[str, Tensor]:
    """The tensors of an adapter and a head by their names in a checkpoint."""
    own = {f"adapter.{name}": tensor for name, tensor in adapter.items()}
    return own | {
        f"head.{name}": tensor for name, tensor in head.state_dict(keep_vars=True).items()
    }


def adds_to_weights(frozen: Tensors, update: WeightUpdate) -> bool:
    """Whether an update can be added to a frozen weight: that of a linear layer, in full precision.

    A weight in 16 bits would round small updates away. Where the caller trains the layer's own
    tensors too, they would get no gradient.
    """
    weight = frozen["weight"]
    full = not torch.is_autocast_enabled(weight.device.type) and weight.dtype == update.up.dtype
    trained = any(tensor.requires_grad for tensor in frozen.values())
    return full and weight.ndim == 2 and not trained


def _takes_pooled_only(
    adapter: Adapter, places: Container[Place], backbone: FrozenBackbone
) -> bool:
    """Whether the adapter can do without the last block's tokens that are not pooled."""
    depth = backbone.anatomy.depth
    if not backbone.kind.pools_first_token or Place(depth - 1, Site.ATTENTION) in places:
        return False
    later = {Place(depth - 1, site) for site in AFTER_ATTENTION} | {Place(depth, Site.FINAL_NORM)}
    return adapter.tokenwise or not any(place in places for place in later)
