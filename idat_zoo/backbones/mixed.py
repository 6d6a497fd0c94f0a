"""Forward passes for inference in which every image has an adapter of its own.

The frozen layers process all images at once. At a site, the images of one family's adapters gather
their adapters' tensors from a table and go through the site together, as batched products (the
problem of Symbiosis, arXiv:2507.03220, and of Punica, arXiv:2310.18547, here for vision).

Shape letters: B images, C channels, H W image, K classes, D width, N tokens, O outputs.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby, pairwise

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from idat_zoo.adapters.low_rank import WeightUpdate, updated_linear
from idat_zoo.adapters.sites import Place, Site
from idat_zoo.adapters.tensors import Carry, Tensors
from idat_zoo.backbones.adapter_table import AdapterTable, Member, member_of, prompts_of
from idat_zoo.backbones.frozen import FrozenBackbone
from idat_zoo.backbones.network import Network, adds_to_weights, copies_at
from idat_zoo.backbones.sharing import of_rows
from idat_zoo.backbones.sites import Compute, Visitor
from idat_zoo.backbones.walk import begin, features

ENOUGH = 16
"""The number of an adapter's images from which a pass of its own is as fast, on a CPU."""
MOST_HEAD_BYTES = 2**18
"""The size of a head up to which one is gathered for each image."""


class Mixture:
    """A frozen backbone with adapters by name, for batches in which each image names its own.

    It is for inference, so there are no masks. Its adapters take no parameters of the backbone with
    them, and insert equally many prompts in each block (`Member.prompts`).
    """

    def __init__(self, backbone: FrozenBackbone) -> None:
        self.backbone = backbone
        self._tables: dict[Hashable, AdapterTable] = {}
        self._homes: dict[Hashable, tuple[AdapterTable, int]] = {}

    def put(self, name: Hashable, member: Member) -> None:
        """Copy an adapter's tensors to the backbone's device; it replaces one of the same name."""
        if name in self._homes:
            self.remove(name)
        device = next(self.backbone.body.parameters()).device
        adapter = member.adapter
        key = (adapter.stack_key, member.prompts) if adapter.stackable else name
        if key not in self._tables:
            self._tables[key] = AdapterTable(adapter, self.backbone.anatomy, device)
        table = self._tables[key]
        self._homes[name] = table, table.put(member)

    def remove(self, name: Hashable) -> None:
        """Take an adapter out."""
        table, row = self._homes.pop(name)
        table.remove(row)

    def __call__(
        self, images: UInt8[Tensor, "B C H W"], names: Sequence[Hashable]
    ) -> list[Float[Tensor, "_"]]:
        """The logits `[K]` of each image, by the adapter that `names` has for it, in their order.

        On a CPU, an adapter with many images gets a pass of its own.
        """
        counts = Counter(names)
        enough = ENOUGH if images.device.type == "cpu" else len(names) + 1
        alone = {name for name, count in counts.items() if count >= enough}
        passes = [[name] for name in counts if name in alone]
        passes += [[name for name in counts if name not in alone]]
        logits: dict[int, Tensor] = {}
        for together in passes:
            positions = self._in_order(together, names)
            if positions:
                ordered = positions == list(range(len(images)))
                own = images if ordered else images[positions]
                found = self._pass(own, [self._homes[names[k]] for k in positions])
                logits |= dict(zip(positions, found, strict=True))
        return [logits[position] for position in range(len(names))]

    def _in_order(self, together: Sequence[Hashable], names: Sequence[Hashable]) -> list[int]:
        """The positions of these adapters' images, those of a table and of an adapter in a row."""
        numbers = {id(table): number for number, table in enumerate(self._tables.values())}
        homes = {name: self._homes[name] for name in together}
        places = {name: (numbers[id(table)], row) for name, (table, row) in homes.items()}
        positions = [position for position, name in enumerate(names) if name in places]
        return sorted(positions, key=lambda position: places[names[position]])

    def _pass(self, images: Tensor, homes: Sequence[tuple[AdapterTable, int]]) -> list[Tensor]:
        """One forward pass; the images of a table, and among them those of a row, are in a row."""
        block = self.backbone.anatomy.blocks[0]
        most = 4 * 4 * block.tokens * block.width  # what the MLP makes of an image, in float32
        runs = _runs(homes, images.device, most)
        members = [table.members[row] for table, row in homes]
        assert len({member.prompts for member in members}) == 1, "sequences are of one length"
        mean, std = (torch.cat(own) for own in zip(*(run.scaling() for run in runs), strict=True))
        start = begin((images.to(mean.dtype) / 255 - mean) / std)
        shared = _SharedPass(self.backbone, runs, len(images))
        visitor = Visitor(
            frozenset().union(*(member.places for member in members)),
            shared.offer,
            shared.prompt,
            pooled_only=all(member.pooled_only for member in members),
        )
        pooled = features(self.backbone.kind, start, visitor, None)
        logits = [row for run in runs for row in run.logits(pooled[run.start : run.end])]
        return [row[: own.num_classes] for row, own in zip(logits, members, strict=True)]


@dataclass
class _Run:
    """The images from `start` to `end`, which go through every site together.

    `rows` are those of their adapters in the table: one for all, or one for each image.
    """

    table: AdapterTable
    rows: Tensor | int
    start: int
    end: int
    carry: Carry = field(default_factory=dict)
    gathered: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.end - self.start

    def local(self, block: int) -> dict[str, Tensor]:
        """The tensors for `apply`, gathered once for all sites of a block."""
        if block not in self.gathered:
            self.gathered = {block: self.table.local(block, self.rows)}
        return self.gathered[block]

    def scaling(self) -> tuple[Tensor, Tensor]:
        """Mean and std by image."""
        mean, std = self.table.scaling(self.rows)
        shape = (self.size, *mean.shape[-3:])
        return mean.expand(shape), std.expand(shape)

    def logits(self, pooled: Tensor) -> Tensor:
        """`[B, K]` with the table's largest K; large heads are not gathered."""
        rows = self.rows
        if isinstance(rows, int) or self.table.head_bytes <= MOST_HEAD_BYTES:
            return self.table.logits(pooled, rows)
        each = zip(pooled.split(1), rows.tolist(), strict=True)
        return torch.cat([self.table.logits(own, row) for own, row in each])


def _runs(
    homes: Sequence[tuple[AdapterTable, int]], device: torch.device, most_bytes: int
) -> list[_Run]:
    """The runs of images: those of a table that gathers theirs, or those of each row.

    They gather tensors of up to `most_bytes` for a block of one image.
    """
    runs, start = [], 0
    for _, own in groupby(homes, key=lambda home: id(home[0])):
        table, rows = _together(own)
        counts = Counter(rows)  # in the rows' order
        if len(counts) > 1 and table.bytes_of_a_block() <= most_bytes:
            of_each = torch.tensor(rows, device=device)
            runs.append(_Run(table, of_each, start, start + len(rows)))
        else:
            ends = accumulate(counts.values(), initial=start)
            bounds = zip(counts, pairwise(ends), strict=True)
            runs += [_Run(table, row, first, end) for row, (first, end) in bounds]
        start += len(rows)
    return runs


def _together(homes: Iterable[tuple[AdapterTable, int]]) -> tuple[AdapterTable, list[int]]:
    tables, rows = zip(*homes, strict=True)
    return tables[0], list(rows)


class _SharedPass:
    """One pass, whose sites are shared out among runs of images."""

    def __init__(self, backbone: FrozenBackbone, runs: Sequence[_Run], images: int) -> None:
        self._anatomy, self._runs, self._images = backbone.anatomy, runs, images

    def offer(self, site: Site, block: int, x: Tensor, compute: Compute, frozen: Tensors) -> Tensor:
        """The value that replaces y at a site."""
        place, windows = Place(block, site), x.shape[0] // self._images  # a window is a row
        if len(self._runs) == 1 and isinstance(self._runs[0].rows, int):
            run = self._runs[0]
            update = run.table.adapter.weight_update(site, run.local(block))
            if update is not None and adds_to_weights(frozen, update):
                return updated_linear(x, frozen["weight"], frozen.get("bias"), update)
        y = compute(x, {})
        if y.data_ptr() == x.data_ptr():
            y = y.clone()  # what follows may write into y, and the stream is read again
        for run in self._runs:
            if any(place in member.places for member in run.table.members.values()):
                rows = slice(run.start * windows, run.end * windows)
                own = self._applied(run, place, x[rows], y[rows], compute, frozen)
                if len(self._runs) == 1:
                    return own
                if own.data_ptr() != y[rows].data_ptr():
                    y[rows] = own
        return y

    def prompt(self, block: int, x: Tensor) -> Tensor | None:
        """The prompts of all images before a block, `[B, P, D]`, or None."""
        tokens = [_prompts(run, block) for run in self._runs]
        given = [own for own in tokens if own is not None]
        return torch.cat(given) if given else None

    def _applied(
        self, run: _Run, place: Place, x: Tensor, y: Tensor, compute: Compute, frozen: Tensors
    ) -> Tensor:
        """The value that replaces y for the images of one run; updates are added to y itself."""
        if isinstance(run.rows, Tensor):
            update = run.table.weight_updates(place, run.rows)
            if update is not None and adds_to_weights(frozen, update):
                return _add_updates(x, y, update)
        adapter, site, local = run.table.adapter, place.site, run.local(place.block)
        copies, block = copies_at(adapter, site, local), self._anatomy.block(place.block)
        if isinstance(run.rows, int):
            y, run.carry = adapter.apply_carrying(
                site,
                local,
                x,
                compute(x, copies) if copies else y,
                run.carry,
                frozen=of_rows(frozen, x.shape[0]),
                masks={},
                block=block,
            )
            return y
        own_x, own_y = x.unflatten(0, (run.size, -1)), y.unflatten(0, (run.size, -1))
        if copies:
            own_y = torch.vmap(compute)(own_x, copies)
        of_image = of_rows(frozen, own_x.shape[1])

        def apply(tensors: Tensors, x: Tensor, y: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
            return adapter.apply_carrying(
                site, tensors, x, y, carry, frozen=of_image, masks={}, block=block
            )

        own_y, run.carry = torch.vmap(apply)(local, own_x, own_y, run.carry)
        return own_y.flatten(0, 1)


def _prompts(run: _Run, block: int) -> Tensor | None:
    """A run's prompts before a block, `[B, P, D]`, or None."""
    place = Place(block, Site.PROMPT)
    if not any(place in member.places for member in run.table.members.values()):
        return None
    adapter, local = run.table.adapter, run.local(block)

    def of_one(tensors: Tensors) -> Tensor | None:
        tokens = adapter.prompt(tensors, masks={})
        return None if tokens is None else tokens.expand(1, -1, -1)[0]

    if isinstance(run.rows, int):
        same = of_one(local)
        return None if same is None else same.expand(run.size, -1, -1)
    if of_one({name: own[0] for name, own in local.items()}) is None:
        return None
    return torch.vmap(of_one)(local)


def _add_updates(x: Tensor, y: Tensor, update: WeightUpdate) -> Tensor:
    """Add x A^T B^T to y in place, for x `[.., N, D]` and y `[.., N, O]` that was just computed."""
    up, down = update
    own = y.view(len(up), -1, y.shape[-1])
    own.baddbmm_(x.reshape(len(down), -1, x.shape[-1]) @ down.mT, up.mT)
    return y


class MixedNetwork:
    """Networks of any adapters over one frozen backbone, each on its own images, in one pass."""

    def __init__(self, networks: Sequence[Network]) -> None:
        assert all(n.body is networks[0].body for n in networks), "they share one backbone"
        assert all(n.mixes for n in networks), "their adapters stand in the frozen pass"
        assert len({prompts_of(n) for n in networks}) == 1, "their sequences are of one length"
        self.networks = list(networks)
        self._mixture = Mixture(networks[0].backbone)
        for number, network in enumerate(networks):
            if not network.body_copies():
                self._mixture.put(number, member_of(network))

    def __call__(self, images: Sequence[UInt8[Tensor, "_ C H W"]]) -> list[Float[Tensor, "_ _"]]:
        """The logits `[B, K]` of each network for its own batch, of any size.

        Networks that train copies of the backbone's parameters get passes of their own.
        """
        alone = [bool(network.body_copies()) for network in self.networks]
        shared = [k for k, own in enumerate(alone) if not own]
        names = [k for k in shared for _ in images[k]]
        rows = iter(self._mixture(torch.cat([images[k] for k in shared]), names) if shared else [])
        return [
            network(own) if single else torch.stack([next(rows) for _ in own])
            for network, own, single in zip(self.networks, images, alone, strict=True)
        ]
