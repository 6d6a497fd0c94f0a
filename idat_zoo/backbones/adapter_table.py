"""Tables of adapters' tensors: one row for each adapter of a family, gathered by image.

In a pass that adapters share, each image takes the row of its own adapter. So a site of the
backbone costs a few batched products, however many adapters take part.

Shape letters: B images, K classes, D width, P prompts.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.base import Adapter
from idat_zoo.adapters.low_rank import WeightUpdate
from idat_zoo.adapters.sites import Place, Site
from idat_zoo.adapters.tensors import Tensors, home_of
from idat_zoo.backbones.network import Network
from idat_zoo.backbones.sharing import common_adapter

WEIGHT, BIAS = "head.weight", "head.bias"
CONSTANT, OWN = "constant.", "adapter."
DOWN, UP = "down", "up"


@dataclass(frozen=True, kw_only=True)
class Member:
    """An adapter and its head, as a pass that is shared with others needs them.

    `tensors` are by their names in a checkpoint, with `constant.NAME`, `mean` and `std` beside
    them. `prompts` are the numbers of prompts before each block, empty if there are none.
    """

    adapter: Adapter
    tensors: Tensors
    places: frozenset[Place]
    prompts: tuple[int, ...]
    pooled_only: bool

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return len(self.tensors[BIAS])


def member_of(network: Network, tensors: Tensors | None = None) -> Member:
    """A network as a member, with the given values of its published tensors, or its own."""
    constants = {f"{CONSTANT}{n}": t for n, t in network.constants.tensors().items()}
    scaling = {"mean": network.mean, "std": network.std}
    return Member(
        adapter=network.adapter,
        tensors={**(tensors or network.published()), **constants, **scaling},
        places=network.places,
        prompts=prompts_of(network),
        pooled_only=network.pooled_only,
    )


def prompts_of(network: Network) -> tuple[int, ...]:
    """The number of prompts that a network inserts at each block; empty if it has none."""
    if all(place.site is not Site.PROMPT for place in network.places):
        return ()
    tokens = [network.prompt(block, {}) for block in range(network.anatomy.depth)]
    return tuple(0 if own is None else own.shape[-2] for own in tokens)


class AdapterTable:
    """The tensors of adapters with one stack key, a row of each table for each adapter.

    Ranks and numbers of classes may differ: smaller tensors are padded with zeros. A row that was
    freed is taken by the next adapter.
    """

    def __init__(self, adapter: Adapter, anatomy: Anatomy, device: torch.device) -> None:
        self.adapter = common_adapter([adapter]) if adapter.stackable else adapter
        self._anatomy, self._device = anatomy, device
        self._tables: dict[str, Tensor] = {}
        self._free: list[int] = []
        self._names: dict[int, list[tuple[str, str]]] = {}
        self.members: dict[int, Member] = {}

    @torch.inference_mode(mode=False)  # tables are changed in and outside of that mode
    def put(self, member: Member) -> int:
        """Copy a member's tensors into a free row, and return its number."""
        if not self._free:
            size = max(2 * len(self.members), 1)
            self._free = list(range(len(self.members), size))[::-1]
            self._tables = {n: _enlarged(t, (size, *t.shape[1:])) for n, t in self._tables.items()}
        row = self._free.pop()
        self.members[row] = member
        tensors = {**member.tensors, **self._updates(member)}
        for name, tensor in tensors.items():
            self._write(row, name, tensor.detach())
        for name in self._tables.keys() - tensors.keys():
            self._tables[name][row] = 0  # of the adapter that had the row before
        return row

    def _write(self, row: int, name: str, tensor: Tensor) -> None:
        """Copy a tensor into a row of its table, which is made or enlarged where it must be."""
        rows = len(self.members) + len(self._free)
        table = self._tables.get(name)
        if table is None:
            table = torch.zeros(rows, *tensor.shape, dtype=tensor.dtype, device=self._device)
            self._names = {}
        sizes = [max(pair) for pair in zip(table.shape[1:], tensor.shape, strict=True)]
        self._tables[name] = table = _enlarged(table, (rows, *sizes))
        own = table[row]
        if own.shape != tensor.shape:
            own.zero_()
            for axis, size in enumerate(tensor.shape):
                own = own.narrow(axis, 0, size)
        own.copy_(tensor)

    def _updates(self, member: Member) -> dict[str, Tensor]:
        """The low-rank updates of a member's layers: factors with the rank as their first axis."""
        found = {}
        for place in member.places:
            update = member.adapter.weight_update(place.site, self._own(member, place.block))
            if update is not None:
                found[_name(UP, place)], found[_name(DOWN, place)] = update.up.mT, update.down
        return found

    def _own(self, member: Member, block: int) -> dict[str, Tensor]:
        """A member's tensors for `apply` in a block."""
        return {short: member.tensors[name] for short, name in self._named(block, member.tensors)}

    def _named(self, block: int, names: Iterable[str]) -> list[tuple[str, str]]:
        """The short and whole names of a block's tensors, the shared ones and the constants."""
        prefixes = (OWN + home_of(block, self._anatomy.depth), f"{OWN}shared.", CONSTANT)
        return [
            (name.removeprefix(prefix), name)
            for name in names
            for prefix in prefixes
            if name.startswith(prefix)
        ]

    @torch.inference_mode(mode=False)
    def remove(self, row: int) -> None:
        """Free a row."""
        del self.members[row]
        self._free.append(row)

    def local(self, block: int, rows: Tensor | int) -> dict[str, Tensor]:
        """The tensors for `apply` in a block: of one row, or gathered by rows `[B]` with a B first.

        They are the block's, the shared ones and the constants.
        """
        if block not in self._names:
            self._names[block] = self._named(block, self._tables)
        return {short: _taken(self._tables[name], rows) for short, name in self._names[block]}

    def bytes_of_a_block(self) -> int:
        """The bytes of one adapter's tensors for `apply` in the block where they are most."""
        blocks = [self.local(block, 0).values() for block in range(-1, self._anatomy.depth + 1)]
        return max(sum(tensor.nbytes for tensor in own) for own in blocks)

    def weight_updates(self, place: Place, rows: Tensor) -> WeightUpdate | None:
        """The updates of a linear layer's weight, gathered by rows: factors `[B, ..]`.

        None for a family that does something else at the place.
        """
        up, down = (self._tables.get(_name(which, place)) for which in (UP, DOWN))
        if up is None or down is None:
            return None
        return WeightUpdate(up.index_select(0, rows).mT, down.index_select(0, rows))

    @property
    def head_bytes(self) -> int:
        """The bytes of one head."""
        return self._tables[WEIGHT][0].nbytes

    def scaling(self, rows: Tensor | int) -> tuple[Tensor, Tensor]:
        """Mean and std of a row, `[C, 1, 1]`, or of rows `[B]`, `[B, C, 1, 1]`."""
        return _taken(self._tables["mean"], rows), _taken(self._tables["std"], rows)

    def logits(self, pooled: Tensor, rows: Tensor | int) -> Tensor:
        """The logits of features `[B, D]` by the heads of one row or of rows `[B]`: `[B, K]`.

        K is the largest number of classes in the table; what lies beyond an adapter's own is zero.
        """
        weight, bias = _taken(self._tables[WEIGHT], rows), _taken(self._tables[BIAS], rows)
        if isinstance(rows, int):
            return F.linear(pooled, weight, bias)
        return torch.baddbmm(bias[:, None], pooled[:, None], weight.mT)[:, 0]


def _name(which: str, place: Place) -> str:
    return f"{which}.{place.block}.{place.site}"


def _taken(table: Tensor, rows: Tensor | int) -> Tensor:
    """One row, or a copy of several (`index_select` is far faster than indexing)."""
    return table[rows] if isinstance(rows, int) else table.index_select(0, rows)


def _enlarged(table: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The table, padded with zeros at the end of each axis."""
    missing = [big - size for big, size in zip(sizes, table.shape, strict=True)]
    if not any(missing):
        return table
    return F.pad(table, [side for size in reversed(missing) for side in (0, size)])
