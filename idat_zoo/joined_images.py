"""Images of one or more tensors as one sequence, of which only the indexed batches are copied.

Shape letters: B batch, N images, C channels, H W image.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

AT_ONCE = 256
"""Images that are copied at a time to another device."""


class JoinedImages:
    """Images `[N, C, H, W]` in the CPU's memory, which are the images of `parts` in order.

    The parts may be memory-mapped files: they are read where they are, and never copied as a whole.
    A batch is always contiguous, since a network's last bits depend on the strides of its input.
    """

    def __init__(self, parts: Sequence[UInt8[Tensor, "_ C H W"]]) -> None:
        self.parts = tuple(parts)
        self._ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, rows: Int64[Tensor, "B"] | list[int] | slice) -> UInt8[Tensor, "B C H W"]:
        """A contiguous copy of the images at some indices, which are not negative."""
        if isinstance(rows, slice):
            rows = torch.arange(len(self))[rows]
        rows = torch.as_tensor(rows)
        batch = torch.empty((len(rows), *self.parts[0].shape[1:]), dtype=torch.uint8)
        for end, part in zip(self._ends, self.parts, strict=True):
            begin = end - len(part)
            inside = (begin <= rows) & (rows < end)
            batch[inside] = part[rows[inside] - begin]
        return batch

    def split(self, size: int) -> Iterator[UInt8[Tensor, "B C H W"]]:
        """All images in order, in batches of a size; the last one may be smaller."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def to(self, device: torch.device) -> "JoinedImages | UInt8[Tensor, 'N C H W']":
        """These images themselves for a CPU; for another device, a contiguous tensor there."""
        if device.type == "cpu":
            return self
        whole = torch.empty((len(self), *self.parts[0].shape[1:]), dtype=torch.uint8, device=device)
        for batch, target in zip(self.split(AT_ONCE), whole.split(AT_ONCE), strict=True):
            target.copy_(batch)
        return whole
