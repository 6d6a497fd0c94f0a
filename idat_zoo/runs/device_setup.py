"""The device that runs are trained on, with its settings and the backbones loaded on it."""

from dataclasses import dataclass, field

import torch

from idat_zoo.backbones.pair import Backbones
from idat_zoo.errors import UsageError
from idat_zoo.switches import Switches


@dataclass(frozen=True, kw_only=True)
class DeviceSetup:
    """A device, the switches that say how it computes, and the backbones loaded on it.

    `stack` is the largest number of runs that share one pass. None means as many as fit into the
    memory of a CUDA device, and one elsewhere, because a larger batch is no faster there.
    """

    device: torch.device
    backbones: Backbones
    switches: Switches = field(default_factory=Switches)
    stack: int | None = None

    @property
    def one_at_a_time(self) -> bool:
        """Whether every run is trained in a pass of its own."""
        return self.stack == 1 or (self.stack is None and self.device.type != "cuda")


def set_up(
    device: torch.device, switches: Switches | None = None, *, stack: int | None = None
) -> DeviceSetup:
    """Set up a device; no backbone is loaded yet.

    Raises: UsageError for a `stack` below one.
    """
    if stack is not None and stack < 1:
        raise UsageError(f"a pass holds at least one run (stack = {stack}).")
    return DeviceSetup(
        device=device,
        backbones=Backbones(device),
        switches=switches or Switches(),
        stack=stack,
    )
