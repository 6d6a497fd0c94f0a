"""Random draws that each depend on a key alone, so that no draw changes another.

A draw comes from a generator made for (seed, network, stream, step); a stream is a name for one
purpose, such as "order". The state of the global generators of torch, numpy and Python never
matters. So a resumed training needs no random state, tasks trained together draw the same as alone,
and a student gets the same masks with and without its teacher.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


def generator(seed: int, network: str, stream: str, step: int = 0) -> torch.Generator:
    """A CPU generator for one key. torch's CPU generator uses only 32 bits of the seed."""
    key = hashlib.sha256(f"{seed}/{network}/{stream}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)


@dataclass(frozen=True)
class Draws:
    """The draws of one network in one step."""

    seed: int
    network: str
    step: int

    def uniform(self, stream: str, *shape: int) -> Tensor:
        """Uniform float32 values in [0, 1), on CPU: the same on every device."""
        source = generator(self.seed, self.network, stream, self.step)
        return torch.rand(*shape, generator=source)

    def normal(self, stream: str, *shape: int) -> Tensor:
        """Standard normal float32 values, on CPU."""
        source = generator(self.seed, self.network, stream, self.step)
        return torch.randn(*shape, generator=source)

    def keep(self, stream: str, rate: Tensor | float, *shape: int) -> Tensor:
        """A mask that is 0 with probability `rate`, else 1 / (1 - rate)."""
        return (self.uniform(stream, *shape) >= rate) / (1 - rate)
