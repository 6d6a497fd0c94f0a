"""A frozen backbone with an adapter and a new head: alone, in a stack of tasks, or among others.

Shape letters: B batch, C channels, H W image, N tokens, D width, K classes, T tasks, L blocks.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from idat_zoo.adapters.base import Adapter, Carry, Created, Mask, Site, Tensors, trunc_normal
from idat_zoo.backbones.frozen import FrozenBackbone
from idat_zoo.backbones.walk import walk
from idat_zoo.randomness import Draws, generator
from idat_zoo.recipe import Rgb

Logits = Float[Tensor, "B K"]
Images = UInt8[Tensor, "B C H W"] | Float[Tensor, "B C H W"]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DROP_PATH = "drop_path"


class NamedTensors(nn.Module):
    """Tensors under dotted names, which move with the module that holds them."""

    def __init__(self, created: Created) -> None:
        super().__init__()
        self._names = {_attribute(name): name for name in (*created.trainable, *created.frozen)}
        for name, tensor in created.trainable.items():
            self.register_parameter(_attribute(name), nn.Parameter(tensor))
        for name, tensor in created.frozen.items():
            self.register_buffer(_attribute(name), tensor)

    def tensors(self) -> dict[str, Tensor]:
        """All of them by their dotted names."""
        return {name: getattr(self, attribute) for attribute, name in self._names.items()}

    def under(self, *prefixes: str) -> dict[str, Tensor]:
        """Those whose name begins with one of the prefixes, by the rest of their names."""
        return {
            name.removeprefix(prefix): getattr(self, attribute)
            for attribute, name in self._names.items()
            for prefix in prefixes
            if name.startswith(prefix)
        }


def _attribute(name: str) -> str:
    return name.replace(".", "/")  # torch forbids dots in the names of parameters


class Network(nn.Module):
    """Frozen backbone, adapter, head: images in, logits out.

    `mean` and `std` normalise uint8 images scaled to [0, 1]; float images are taken as they are.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: FrozenBackbone,
        adapter: Adapter,
        created: Created,
        head: nn.Linear,
        *,
        mean: Rgb,
        std: Rgb,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.vit = backbone.vit
        self.adapter = adapter
        self.anatomy = replace(backbone.anatomy, weights={})  # no second copy of the backbone
        self.adapter_tensors = NamedTensors(created)
        self.head = head
        constants = {name: torch.tensor(value) for name, value in adapter.constants.items()}
        self.constants = NamedTensors(Created(trainable={}, frozen=constants))
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that learn: `adapter.…` and `head.…`."""
        adapter = self.adapter_tensors.tensors()
        learn = {
            f"adapter.{name}": tensor
            for name, tensor in adapter.items()
            if isinstance(tensor, nn.Parameter)
        }
        return learn | {f"head.{name}": tensor for name, tensor in self.head.named_parameters()}

    def published(self) -> dict[str, Tensor]:
        """Every tensor that is not the backbone's: adapter (trained and frozen) and head."""
        adapter = {f"adapter.{n}": t for n, t in self.adapter_tensors.tensors().items()}
        return adapter | {f"head.{n}": t for n, t in self.head.named_parameters()}

    def local(self, block: int) -> dict[str, Tensor]:
        """What `apply` is handed in a block: its tensors, the shared ones, the constants."""
        tensors = self.adapter_tensors.under(f"blocks.{block}.", "shared.")
        return tensors | self.constants.tensors()

    def draw_masks(self, batch: int, *, drop_path: float, draws: Draws) -> dict[str, Tensor]:
        """Every random mask of one training step, drawn before the forward pass.

        Drop path rates rise linearly from 0 at the first block; adapters stand outside it.
        """
        device = self.mean.device
        masks: dict[str, Tensor] = {}
        if drop_path > 0:
            rates = torch.linspace(0, drop_path, self.anatomy.depth).view(-1, 1, 1)
            masks[DROP_PATH] = draws.keep(DROP_PATH, rates, self.anatomy.depth, 2, batch)
        for key, mask in self._declared_masks():
            masks[key] = draws.keep(key, mask.rate, batch, *mask.shape)
        dtype = self.mean.dtype
        return {name: mask.to(device, dtype, non_blocking=True) for name, mask in masks.items()}

    def _declared_masks(self) -> Iterable[tuple[str, Mask]]:
        for site in sorted(self.adapter.sites):
            declared = self.adapter.masks(site, self.anatomy)
            last = self.anatomy.depth
            for block in [last] if site is Site.FEATURES else range(last):
                for name, mask in declared.items():
                    if mask.rate > 0:
                        yield f"{_at(site, block)}{name}", mask

    def move_own(self, device: torch.device) -> None:
        """Move everything but the backbone, which others may share."""
        for part in (self.adapter_tensors, self.constants, self.head):
            part.to(device)
        self.mean, self.std = self.mean.to(device), self.std.to(device)

    def normalise(self, images: Images) -> Float[Tensor, "B C H W"]:
        """uint8 pixels to the range the backbone was trained on."""
        if images.dtype == torch.uint8:
            return (images.to(self.mean.dtype) / 255 - self.mean) / self.std
        return images

    def features(self, images: Images, masks: Tensors | None = None) -> Float[Tensor, "B D"]:
        """Pooled features, adapted."""
        masks = masks or {}
        carry: Carry = {}

        def at(site: Site, block: int, x: Tensor, y: Tensor, module: nn.Module | None) -> Tensor:
            nonlocal carry
            if site not in self.adapter.sites:
                return y
            y, carry = self.adapter.apply_carrying(
                site,
                self.local(block),
                x,
                y,
                carry,
                frozen=_tensors_of(module),
                masks=_masks_at(masks, site, block),
            )
            return y

        return walk(self.vit, self.normalise(images), at, masks.get(DROP_PATH))

    def forward(self, images: Images, masks: Tensors | None = None) -> Logits:
        """Images `[B, 3, H, W]` to logits; `masks` as `draw_masks` gives them, in training."""
        logits: Tensor = self.head(self.features(images, masks))
        return logits

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Network":
        """As nn.Module does; constants stay exact in the new type, not rounded twice."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in self.adapter.constants.items():
            self.constants.tensors()[name].fill_(value)
        return self

    def train(self, mode: bool = True) -> "Network":
        """The frozen backbone stays in evaluation mode; randomness comes by masks alone."""
        super().train(mode)
        self.vit.eval()
        return self


class StackedNetwork:
    """T adapters of one family over one frozen backbone, in one pass.

    Adapter tensors, constants and masks are stacked along a leading task axis, padded with zeros to
    the largest rank, and the family's own `apply` runs under `torch.vmap`. The networks' parameters
    stay their own leaves: gradients reach each of them as in a solo pass.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        first = networks[0]
        assert all(n.vit is first.vit for n in networks), "a stack shares one backbone"
        assert all(type(n.adapter) is type(first.adapter) for n in networks)
        assert first.adapter.stackable, f"'{first.adapter.name}' cannot be stacked"
        self.networks = list(networks)

    def __call__(
        self, images: Sequence[Images], masks: Sequence[Tensors] | None = None
    ) -> list[Logits]:
        """One batch per task, all of one size `[B, 3, H, W]`; one `[B, K]` of logits per task."""
        first, T = self.networks[0], len(self.networks)
        masks = masks or [{}] * T
        joined = torch.cat([n.normalise(x) for n, x in zip(self.networks, images, strict=True)])
        carry: Carry = {}

        def at(site: Site, block: int, x: Tensor, y: Tensor, module: nn.Module | None) -> Tensor:
            nonlocal carry
            if site not in first.adapter.sites:
                return y
            apply = partial(first.adapter.apply_carrying, site, frozen=_tensors_of(module))
            y, carry = torch.vmap(
                lambda tensors, x, y, carry, masks: apply(tensors, x, y, carry, masks=masks)
            )(
                pad_and_stack([n.local(block) for n in self.networks]),
                x.unflatten(0, (T, -1)),
                y.unflatten(0, (T, -1)),
                carry,
                pad_and_stack(self._masks_at(masks, site, block)),
            )
            return y.flatten(0, 1)

        features = walk(first.vit, joined, at, self._drop_path(masks))
        return [n.head(f) for n, f in zip(self.networks, features.chunk(T), strict=True)]

    def _masks_at(
        self, masks: Sequence[Tensors], site: Site, block: int
    ) -> list[dict[str, Tensor]]:
        """Each task's masks at a site; a task without one that others have keeps everything."""
        at_site = [_masks_at(m, site, block) for m in masks]
        models = {name: mask for own in at_site for name, mask in own.items()}
        filled = []
        for network, own in zip(self.networks, at_site, strict=True):
            declared = network.adapter.masks(site, network.anatomy)
            ones = {n: m.new_ones(m.shape[0], *declared[n].shape) for n, m in models.items()}
            filled.append(ones | own)
        return filled

    @staticmethod
    def _drop_path(masks: Sequence[Tensors]) -> Tensor | None:
        """All tasks' drop path side by side; tasks without it keep every branch."""
        drawn = [m.get(DROP_PATH) for m in masks]
        model = next((mask for mask in drawn if mask is not None), None)
        if model is None:
            return None
        return torch.cat([torch.ones_like(model) if m is None else m for m in drawn], dim=-1)


class MixedNetwork:
    """Adapters of any families over one frozen backbone, each on its own images, in one pass.

    The frozen layers see all images at once; at each site every network's adapter is handed its
    own rows. For evaluation: there are no masks.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        assert all(n.vit is networks[0].vit for n in networks), "they share one backbone"
        self.networks = list(networks)

    def __call__(self, images: Sequence[UInt8[Tensor, "_ C H W"]]) -> list[Float[Tensor, "_ _"]]:
        """One batch for each network, of any size; one `[B, K]` of logits each."""
        sizes = [len(own) for own in images]
        carries: list[Carry] = [{} for _ in self.networks]

        def at(site: Site, block: int, x: Tensor, y: Tensor, module: nn.Module | None) -> Tensor:
            if not any(site in n.adapter.sites for n in self.networks):
                return y
            parts = list(y.split(sizes))
            for i, (network, own) in enumerate(zip(self.networks, x.split(sizes), strict=True)):
                if site in network.adapter.sites:
                    parts[i], carries[i] = network.adapter.apply_carrying(
                        site,
                        network.local(block),
                        own,
                        parts[i],
                        carries[i],
                        frozen=_tensors_of(module),
                        masks={},
                    )
            return torch.cat(parts)

        pairs = zip(self.networks, images, strict=True)
        joined = torch.cat([network.normalise(own) for network, own in pairs])
        features = walk(self.networks[0].vit, joined, at, None)
        return [n.head(own) for n, own in zip(self.networks, features.split(sizes), strict=True)]


def pad_and_stack(dicts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of one name along a new leading axis, zero-padded at the end to the largest shape."""
    return {name: torch.stack(_padded([tensors[name] for tensors in dicts])) for name in dicts[0]}


def _padded(tensors: Sequence[Tensor]) -> list[Tensor]:
    largest = [max(sizes) for sizes in zip(*(t.shape for t in tensors), strict=True)]
    padded = []
    for tensor in tensors:
        missing = [big - size for big, size in zip(largest, tensor.shape, strict=True)]
        pairs = [side for size in reversed(missing) for side in (0, size)]
        padded.append(F.pad(tensor, pairs) if any(missing) else tensor)
    return padded


def _at(site: Site, block: int) -> str:
    return f"blocks.{block}.{site}."


def _masks_at(masks: Tensors, site: Site, block: int) -> dict[str, Tensor]:
    prefix = _at(site, block)
    return {n.removeprefix(prefix): m for n, m in masks.items() if n.startswith(prefix)}


def _tensors_of(module: nn.Module | None) -> dict[str, Tensor]:
    return {} if module is None else dict(module.named_parameters())


def new_head(embed_dim: int, num_classes: int, source: torch.Generator) -> nn.Linear:
    """Weights normal of std 0.02, biases 0, as timm and the released code start it."""
    head = nn.utils.skip_init(nn.Linear, embed_dim, num_classes)
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight.copy_(trunc_normal(num_classes, embed_dim, std=0.02, generator=source))
        head.bias.zero_()
    return head


def build_network(
    backbone: FrozenBackbone,
    adapter: Adapter,
    *,
    num_classes: int,
    normalisation: str,
    seed: int,
    role: str,
) -> Network:
    """A fresh network: tensors drawn for (seed, role), role being `student` or `teacher`."""
    created = adapter.create(backbone.anatomy, generator(seed, role, "adapter"))
    head = new_head(backbone.anatomy.embed_dim, num_classes, generator(seed, role, "head"))
    mean, std = input_range(backbone, normalisation)
    return Network(backbone, adapter, created, head, mean=mean, std=std)


def input_range(backbone: FrozenBackbone, normalisation: str) -> tuple[Rgb, Rgb]:
    """Mean and std for pixels in [0, 1]: the backbone's own, ImageNet's, or none."""
    if normalisation == "imagenet":
        return IMAGENET
    if normalisation == "none":
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return backbone.spec.mean, backbone.spec.std
