"""What families share that change linear layers: which layers, their tensors, and merging.

A layer is one of timm's (`proj`, `fc1`, `fc2`, or `q`, `k`, `v` where those are layers), a third of
the rows of a fused qkv, or the fused `qkv` as one. A family says how a layer's output changes, as a
function that is affine in its input; what is merged follows from that function.

Shape letters: B batch, N tokens, D width.
"""

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.masks import masked
from idat_zoo.adapters.sites import Site, SiteShape
from idat_zoo.adapters.tensors import Created, Tensors

NAMES = {"q": "query", "k": "key", "v": "value"}
"""How tensors of such a part are named; those of others as the part is."""
ROWS = tuple(NAMES.values())
"""The rows of timm's fused qkv, in their order."""
ALONE = {
    Site.Q: "query",
    Site.K: "key",
    Site.V: "value",
    Site.PROJ: "proj",
    Site.FC1: "fc1",
    Site.FC2: "fc2",
}
"""The layers that have a site of their own."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of a block by the name of its tensors; `frozen` gives what it computes with."""

    name: str
    block: int
    inputs: int
    outputs: int
    frozen: Callable[[], Tensors] = field(repr=False, compare=False)


class LayersAdapter(Adapter):
    """A family that stands on linear layers, those that its option `parts` names."""

    sites: ClassVar = frozenset({Site.QKV, *ALONE})
    mergeable = True

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts, as tensors are named by them."""
        return _names(self.options.parts)  # type: ignore[attr-defined]  # all have this option

    @property
    def stack_key(self) -> Hashable:
        """The fused qkv as one layer and its rows are never in one pass."""
        return super().stack_key, "qkv" in self.parts

    def parts_in(self, block: BlockAnatomy) -> tuple[str, ...]:
        """Those of a block: without attention, the default is what it has of them, or its MLP."""
        default = type(self).Options.model_fields["parts"].default
        if block.num_heads or self.parts != _names(default):
            return self.parts
        return tuple(part for part in self.parts if _shape(part, block)) or ("fc1", "fc2")

    def parts_at(self, site: Site) -> tuple[str, ...]:
        """Those at a site, for masks of their own: `PART.NAME`."""
        if site is not Site.QKV:
            return (ALONE[site],)
        return tuple(part for part in self.parts if part in ("qkv", *ROWS))

    def sites_on(self, anatomy: Anatomy) -> frozenset[Site]:
        """The sites of its parts: q, k and v may be rows of one."""
        return frozenset(
            site
            for block in anatomy.blocks
            for part in self.parts_in(block)
            for site in [_site(part, block)]
        )

    def misfit(self, anatomy: Anatomy) -> str:
        """Where one of its parts is not there."""
        for block in anatomy.blocks:
            missing = [part for part in self.parts_in(block) if _shape(part, block) is None]
            if missing and not block.num_heads:
                return f"it has no attention, and so no {' and no '.join(missing)}"
            if missing:
                return f"it has no {' and no '.join(missing)}"
        return ""

    def layers(self, anatomy: Anatomy) -> Iterator[Layer]:
        """All that it stands on, block by block."""
        for i, block in self.stands_in(anatomy):
            for part in self.parts_in(block):
                shape = _shape(part, block)
                assert shape is not None, "misfit has seen to that"
                yield Layer(
                    name=part,
                    block=i,
                    inputs=shape.inputs,
                    outputs=shape.outputs,
                    frozen=_reader(anatomy, _site(part, block), i, part),
                )

    def create(self, anatomy: Anatomy, generator: torch.Generator) -> Created:
        """Each layer's tensors, as `start` draws them."""
        return Created(
            trainable={
                f"blocks.{layer.block}.{layer.name}.{name}": tensor
                for layer in self.layers(anatomy)
                for name, tensor in self.start(layer, generator).items()
            }
        )

    @abstractmethod
    def start(self, layer: Layer, generator: torch.Generator) -> dict[str, Tensor]:
        """A layer's new tensors."""

    @abstractmethod
    def change(
        self, tensors: Tensors, x: Tensor, y: Tensor, frozen: Tensors, masks: Tensors
    ) -> Tensor:
        """A layer's output y `[.., outputs]` of x `[.., inputs]` as it is adapted.

        Affine in x and y. `tensors`: its own, the shared ones and the constants; `frozen`: its
        weight `[outputs, inputs]` and its bias, if it has any; `masks`: its own.
        """

    def apply(
        self,
        site: Site,
        tensors: Tensors,
        x: Tensor,
        y: Tensor,
        *,
        frozen: Tensors,
        masks: Tensors,
        block: BlockAnatomy,
    ) -> Tensor:
        """[B, N, D] and [B, N, outputs] -> [B, N, outputs]: each layer's own."""
        x, frozen = masked(x, masks, "dropout"), _matrices(frozen)
        layers = layers_at(site, tensors)
        if not _rows(site, layers):
            for name in layers:
                y = self.change(own_of(tensors, name), x, y, frozen, own_of(masks, name))
            return y
        thirds = {name: (y.chunk(3, -1)[i], _third(frozen, i)) for i, name in enumerate(ROWS)}
        return torch.cat(
            [
                self.change(own_of(tensors, name), x, own, third, own_of(masks, name))
                if name in layers
                else own
                for name, (own, third) in thirds.items()
            ],
            dim=-1,
        )

    def merge(self, site: Site, tensors: Tensors, frozen: Tensors) -> dict[str, Tensor]:
        """The weight and the bias that compute what the adapted layers do."""
        layers = layers_at(site, tensors)
        if not _rows(site, layers):
            for name in layers:
                frozen = self._merged(own_of(tensors, name), frozen)
            return dict(frozen)
        thirds = [
            self._merged(own_of(tensors, name), _third(frozen, i))
            if name in layers
            else dict(_third(frozen, i))
            for i, name in enumerate(ROWS)
        ]
        nothing = {"bias": torch.zeros_like(frozen["weight"][: len(frozen["weight"]) // 3, 0])}
        names = dict.fromkeys(name for third in thirds for name in third)
        return {name: torch.cat([(nothing | own)[name] for own in thirds]) for name in names}

    def _merged(self, tensors: Tensors, frozen: Tensors) -> dict[str, Tensor]:
        """What one layer's change makes of its weight, and of its bias, if it has one then."""
        weight, bias = frozen["weight"], frozen.get("bias")
        plain = {"weight": weight}
        origin = weight.new_zeros(1, weight.shape[1])
        start = weight.new_zeros(1, weight.shape[0])
        steps = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
        moved = self.change(tensors, origin, start, plain, {})
        found = {"weight": (self.change(tensors, steps, weight.mT, plain, {}) - moved).mT}
        if bias is not None:
            (found["bias"],) = self.change(tensors, origin, bias[None], frozen, {})
        elif moved.any():
            (found["bias"],) = moved
        return found


class UpdatesAdapter(LayersAdapter):
    """One whose change is an update that does not read y: y + U x."""

    @abstractmethod
    def update(self, tensors: Tensors, x: Tensor, masks: Tensors) -> Tensor:
        """U x `[.., outputs]` of x `[.., inputs]`; arguments as those of `change`."""

    def change(
        self, tensors: Tensors, x: Tensor, y: Tensor, frozen: Tensors, masks: Tensors
    ) -> Tensor:
        """y + U x."""
        return y + self.update(tensors, x, masks)

    def apply(
        self,
        site: Site,
        tensors: Tensors,
        x: Tensor,
        y: Tensor,
        *,
        frozen: Tensors,
        masks: Tensors,
        block: BlockAnatomy,
    ) -> Tensor:
        """[B, N, D] and [B, N, outputs] -> [B, N, outputs]: y with all updates added at once."""
        x = masked(x, masks, "dropout")
        layers = layers_at(site, tensors)
        updates = {
            name: self.update(own_of(tensors, name), x, own_of(masks, name)) for name in layers
        }
        if not updates:
            return y
        if not _rows(site, layers):
            return y + next(iter(updates.values()))
        nothing = torch.zeros_like(next(iter(updates.values())))
        return y + torch.cat([updates.get(name, nothing) for name in ROWS], dim=-1)


def _names(parts: str) -> tuple[str, ...]:
    return tuple(NAMES.get(part, part) for part in parts.split("+"))


def parts_at(site: Site) -> tuple[str, ...]:
    """What a layer at a site may be named; at a site that is no layer's, nothing."""
    return ("qkv", *ROWS) if site is Site.QKV else tuple(ALONE[s] for s in ALONE if s is site)


def layers_at(site: Site, tensors: Tensors) -> list[str]:
    """The layers at a site that there are tensors of: in a stack, those of any of its tasks."""
    return [name for name in parts_at(site) if any(own.startswith(f"{name}.") for own in tensors)]


def _rows(site: Site, layers: list[str]) -> bool:
    return site is Site.QKV and "qkv" not in layers


def own_of(tensors: Tensors, layer: str) -> dict[str, Tensor]:
    """A layer's tensors by their own names, and those that belong to none."""
    others = {name: tensor for name, tensor in tensors.items() if "." not in name}
    prefix = f"{layer}."
    mine = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return others | mine


def _matrices(frozen: Tensors) -> Tensors:
    """Convolutions of one pixel as the linear layers that they are."""
    return {n: t.flatten(1) if t.ndim > 2 else t for n, t in frozen.items()}


def _third(frozen: Tensors, which: int) -> dict[str, Tensor]:
    return {name: tensor.chunk(3)[which] for name, tensor in frozen.items()}


def _site(part: str, block: BlockAnatomy) -> Site:
    fused = part == "qkv" or (part in ROWS and Site.QKV in block.sites)
    return Site.QKV if fused else next(site for site, name in ALONE.items() if name == part)


def _shape(part: str, block: BlockAnatomy) -> SiteShape | None:
    shape = block.sites.get(_site(part, block))
    if shape is None or part == "qkv" or _site(part, block) is not Site.QKV:
        return shape
    return SiteShape(tokens=shape.tokens, inputs=shape.inputs, outputs=shape.outputs // 3)


def _reader(anatomy: Anatomy, site: Site, block: int, part: str) -> Callable[[], Tensors]:
    def read() -> Tensors:
        frozen = _matrices(anatomy.frozen(site, block))
        third = site is Site.QKV and part != "qkv"
        return _third(frozen, ROWS.index(part)) if third else frozen

    return read
