"""Changes of linear layers: which layers a family changes, their tensors, and how it is merged.

A layer is one of timm's (`proj`, `fc1`, `fc2`, or `q`, `k`, `v` where those are layers), one third
of the rows of a fused qkv, or the whole fused `qkv`. A family defines how a layer's output changes,
as a function that is affine in its input; the merged weight follows from that function.

Shape letters: B batch, N tokens, D width.
"""

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy, BlockAnatomy
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.low_rank import WeightUpdate
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
    """A layer of a block, under the name of its tensors; `frozen` returns its weight and bias."""

    name: str
    block: int
    inputs: int
    outputs: int
    frozen: Callable[[], Tensors] = field(repr=False, compare=False)


class LayersAdapter(Adapter):
    """A family that changes linear layers, those that its option `parts` names."""

    sites: ClassVar = frozenset({Site.QKV, *ALONE})
    mergeable = True
    tokenwise = True

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts, by the names that their tensors have."""
        return _names(self.options.parts)  # type: ignore[attr-defined]  # all have this option

    @property
    def stack_key(self) -> Hashable:
        """The whole fused qkv and single rows of it never share a pass."""
        return super().stack_key, "qkv" in self.parts

    def parts_in(self, block: BlockAnatomy) -> tuple[str, ...]:
        """The parts of one block.

        Without attention, the default is those of its parts that exist, or else the MLP's two
        layers.
        """
        default = type(self).Options.model_fields["parts"].default
        if block.num_heads or self.parts != _names(default):
            return self.parts
        return tuple(part for part in self.parts if _shape(part, block)) or ("fc1", "fc2")

    def parts_at(self, site: Site) -> tuple[str, ...]:
        """The parts at a site, which prefix the names of their masks: `PART.NAME`."""
        if site is not Site.QKV:
            return (ALONE[site],)
        return tuple(part for part in self.parts if part in ("qkv", *ROWS))

    def sites_on(self, anatomy: Anatomy) -> frozenset[Site]:
        """The sites of its parts: q, k and v may be rows of one layer."""
        return frozenset(
            site
            for block in anatomy.blocks
            for part in self.parts_in(block)
            for site in [_site(part, block)]
        )

    def misfit(self, anatomy: Anatomy) -> str:
        """Names a part that the backbone lacks."""
        for block in anatomy.blocks:
            missing = [part for part in self.parts_in(block) if _shape(part, block) is None]
            if missing and not block.num_heads:
                return f"it has no attention, and so no {' and no '.join(missing)}"
            if missing:
                return f"it has no {' and no '.join(missing)}"
        return ""

    def layers(self, anatomy: Anatomy) -> Iterator[Layer]:
        """All layers that it changes, block by block."""
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
        """The adapted output `[.., outputs]` of a layer with input x and frozen output y.

        It must be affine in x and y. `tensors`: the layer's tensors, the shared ones and the
        constants; `frozen`: its weight `[outputs, inputs]` and its bias, if any; `masks`: its own.
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
        """[B, N, D] and [B, N, outputs] -> [B, N, outputs], each layer on its own."""
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
        """The weight and bias of a linear layer that computes the adapted output."""
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
        """The merged weight of one layer, and its bias, if the result has one."""
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
    """A family whose change is an update that does not read y: y + U x."""

    @abstractmethod
    def update(self, tensors: Tensors, x: Tensor, masks: Tensors) -> Tensor:
        """U x `[.., outputs]` for x `[.., inputs]`, with the arguments of `change`."""

    def factors(self, tensors: Tensors) -> tuple[Tensor, Tensor] | None:
        """`up` `[outputs, R]` and `down` `[R, inputs]` whose product is U, where R is small.

        None for a family whose U is no such product.
        """
        return None

    def weight_update(self, site: Site, tensors: Tensors) -> WeightUpdate | None:
        """The updates of all layers at a site in one, whose rank is the sum of theirs."""
        layers = layers_at(site, tensors)
        ups, downs = [], []
        for name in layers:
            factors = self.factors(own_of(tensors, name))
            if factors is None:
                return None
            up, down = factors
            if _rows(site, layers):
                before, after = ROWS.index(name), len(ROWS) - 1 - ROWS.index(name)
                up = F.pad(up, (0, 0, before * up.shape[0], after * up.shape[0]))
            ups.append(up)
            downs.append(down)
        return WeightUpdate(torch.cat(ups, dim=1), torch.cat(downs)) if ups else None

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
        """[B, N, D] and [B, N, outputs] -> [B, N, outputs], all updates in one sum."""
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
    """The names that a layer at a site may have; none at a site without a layer."""
    return ("qkv", *ROWS) if site is Site.QKV else tuple(ALONE[s] for s in ALONE if s is site)


def layers_at(site: Site, tensors: Tensors) -> list[str]:
    """The layers at a site that have tensors; in a stack, for at least one of the tasks."""
    return [name for name in parts_at(site) if any(own.startswith(f"{name}.") for own in tensors)]


def _rows(site: Site, layers: list[str]) -> bool:
    return site is Site.QKV and "qkv" not in layers


def own_of(tensors: Tensors, layer: str) -> dict[str, Tensor]:
    """A layer's tensors by their short names, with the tensors that belong to no layer."""
    others = {name: tensor for name, tensor in tensors.items() if "." not in name}
    prefix = f"{layer}."
    mine = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return others | mine


def _matrices(frozen: Tensors) -> Tensors:
    """Reshape 1 x 1 convolutions to linear layers."""
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
