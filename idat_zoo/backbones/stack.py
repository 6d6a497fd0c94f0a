"""The forward pass of a stack: networks that share a frozen backbone, trained together.

Adapters of one family, with equal batches, are vectorised by `torch.vmap`. For inference with any
adapters, `mixed.py` has another pass.

Shape letters: B batch, C channels, H W image, K classes, T tasks.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from idat_zoo.adapters.masks import Mask
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Carry, Tensors
from idat_zoo.backbones.network import DROP_PATH, Images, Logits, Network, copies_at
from idat_zoo.backbones.sharing import common_adapter, of_rows
from idat_zoo.backbones.sites import Compute, Visitor
from idat_zoo.backbones.step_masks import by_rows
from idat_zoo.backbones.walk import Partway, begin, features
from idat_zoo.distillation.base import Output, Outputs

Forward = Callable[[Sequence[Images | Partway], Sequence[Tensors]], list[Outputs]]
"""A forward pass: one batch and one set of masks per network, to the outputs of each network."""


def forward_of(networks: Sequence[Network], reads: Collection[Output] = ()) -> Forward:
    """The forward pass of one network or of a stack, with logits and the outputs in `reads`."""
    if len(networks) > 1:
        stacked = StackedNetwork(networks)
        return lambda starts, masks: stacked.outputs(starts, masks, reads)
    (network,) = networks
    return lambda starts, masks: [network.outputs(starts[0], masks[0], reads)]


class StackedNetwork:
    """T adapters of one family over one frozen backbone, in one pass.

    Adapter tensors, constants and masks are stacked along a leading task axis, padded with zeros to
    the largest rank, and the family's `apply` runs under `torch.vmap`. Each network keeps its own
    parameters as leaves of the graph, so gradients reach them as in a pass of their own.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        assert all(n.body is networks[0].body for n in networks), "a stack shares one backbone"
        self.networks = list(networks)
        self.adapter = common_adapter([n.adapter for n in networks])
        self.places = frozenset().union(*(n.places for n in networks))

    def __call__(
        self, starts: Sequence[Images | Partway], masks: Sequence[Tensors] | None = None
    ) -> list[Logits]:
        """The logits of each task, `[B, K]`; the arguments are those of `outputs`."""
        return [own.logits for own in self.outputs(starts, masks, ())]

    def outputs(
        self,
        starts: Sequence[Images | Partway],
        masks: Sequence[Tensors] | None,
        reads: Collection[Output],
    ) -> list[Outputs]:
        """The outputs of each task for its own batch: logits, and the others in `reads`.

        All batches have one shape `[B, 3, H, W]`, or are forward passes to resume at one place.
        """
        T = len(self.networks)
        masks = masks or [{}] * T
        carry: Carry = {}

        def offer(site: Site, block: int, x: Tensor, compute: Compute, frozen: Tensors) -> Tensor:
            nonlocal carry
            rows = x.shape[0] // T
            local = self._local(block)
            copies = copies_at(self.adapter, site, local)
            own = x.unflatten(0, (T, rows))
            if copies:
                y = torch.vmap(compute)(own, copies)
            else:
                y = compute(x, {}).unflatten(0, (T, rows))
            apply = partial(
                self.adapter.apply_carrying,
                site,
                frozen=of_rows(frozen, rows),
                block=self.networks[0].anatomy.block(block),
            )
            y, carry = torch.vmap(
                lambda tensors, x, y, carry, masks: apply(tensors, x, y, carry, masks=masks)
            )(local, own, y, carry, pad_and_stack(self._masks_at(masks, site, block, own[0])))
            return y.flatten(0, 1)

        def prompt(block: int, x: Tensor) -> Tensor | None:
            if self.networks[0].prompt(block, {}) is None:
                return None
            own = self._masks_at(masks, Site.PROMPT, block, x.chunk(T)[0])

            def of_task(tensors: Tensors, masks: Tensors) -> Tensor:
                tokens = self.adapter.prompt(tensors, masks=masks)
                assert tokens is not None, "a block of all tasks has prompts, or of none"
                return tokens.expand(x.shape[0] // T, -1, -1)

            tokens: Tensor = torch.vmap(of_task)(self._local(block), pad_and_stack(own))
            return tokens.flatten(0, 1)

        keeps_tokens = Output.TOKENS in reads
        visitor = Visitor(
            self.places,
            offer,
            prompt,
            keeps_tokens=keeps_tokens,
            pooled_only=all(n.pooled_only for n in self.networks) and not keeps_tokens,
        )
        begun = join(self.networks, starts)
        pooled = features(self.networks[0].kind, begun, visitor, self._drop_path(masks)).chunk(T)
        tokens = [None] * T if visitor.tokens is None else visitor.tokens.chunk(T)
        kept = pooled if Output.FEATURES in reads else [None] * T
        return [
            Outputs(n.head(own), features, last)
            for n, own, features, last in zip(self.networks, pooled, kept, tokens, strict=True)
        ]

    def _local(self, block: int) -> dict[str, Tensor]:
        return pad_and_stack([network.local(block) for network in self.networks])

    def _masks_at(
        self, masks: Sequence[Tensors], site: Site, block: int, x: Tensor
    ) -> list[dict[str, Tensor]]:
        """The masks of each task at a site, with the same names for all tasks.

        A task without a mask that others have gets a neutral one: ones, or zeros for noise. If its
        adapter does not declare the mask at all, it has no tensors there, so any shape will do.
        """
        at_site = [
            n.masks_of(own, site, block, x) for n, own in zip(self.networks, masks, strict=True)
        ]
        models = {name: mask for own in at_site for name, mask in own.items()}
        filled = []
        for network, own in zip(self.networks, at_site, strict=True):
            declared = network.adapter.masks(site, network.shape_of(site, block, x))
            none = {n: _none_of(declared.get(n), m) for n, m in models.items()}
            filled.append(by_rows(none | own, x))
        return filled

    @staticmethod
    def _drop_path(masks: Sequence[Tensors]) -> Tensor | None:
        """The drop path masks of all tasks, joined along the batch; ones for a task without."""
        drawn = [m.get(DROP_PATH) for m in masks]
        model = next((mask for mask in drawn if mask is not None), None)
        if model is None:
            return None
        return torch.cat([torch.ones_like(model) if m is None else m for m in drawn], dim=-1)


def _none_of(mask: Mask | None, model: Tensor) -> Tensor:
    """A mask that changes nothing, of the batch size and type of another task's mask."""
    if mask is None:
        return torch.ones_like(model)
    nothing = model.new_zeros if mask.noise else model.new_ones
    return nothing(model.shape[0], *mask.shape)


def join(networks: Sequence[Network], starts: Sequence[Tensor | Partway]) -> Partway:
    """The batches of all networks, concatenated in order, as the start of one forward pass.

    Images are normalised first; forward passes to resume must all be at the same place.
    """
    left = [begun for begun in starts if isinstance(begun, Partway)]
    images = [begun for begun in starts if isinstance(begun, Tensor)]
    if images:
        pairs = zip(networks, images, strict=True)
        return begin(torch.cat([n.normalise(own) for n, own in pairs]))
    (_,) = {partway.place for partway in left}
    tensors = zip(*(partway.tensors for partway in left), strict=True)
    return replace(left[0], tensors=tuple(torch.cat(own) for own in tensors))


def pad_and_stack(dicts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack tensors of equal names along a new leading axis, zero-padded to the largest shape.

    A dict without a name that others have contributes zeros.
    """
    models = {name: tensor for tensors in dicts for name, tensor in tensors.items()}
    nothing = {name: model.new_zeros([0] * model.ndim) for name, model in models.items()}
    return {
        name: torch.stack(_padded([tensors.get(name, nothing[name]) for tensors in dicts]))
        for name in models
    }


def _padded(tensors: Sequence[Tensor]) -> list[Tensor]:
    largest = [max(sizes) for sizes in zip(*(t.shape for t in tensors), strict=True)]
    padded = []
    for tensor in tensors:
        missing = [big - size for big, size in zip(largest, tensor.shape, strict=True)]
        pairs = [side for size in reversed(missing) for side in (0, size)]
        padded.append(F.pad(tensor, pairs) if any(missing) else tensor)
    return padded
