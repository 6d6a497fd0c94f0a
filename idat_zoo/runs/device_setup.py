"""The device that runs are trained on, with its settings and the backbones loaded on it."""

from dataclasses import dataclass, field

import torch

from idat_zoo.backbones.pair import Backbones
from idat_zoo.engine.processes import ALONE, Processes
from idat_zoo.errors import UsageError
from idat_zoo.switches import Switches


@dataclass(frozen=True, kw_only=True)
class DeviceSetup:
    """A device, the switches that say how it computes, and the backbones loaded on it.

    `stack` is the largest number of runs that share one pass. None means as many as fit into the
    memory of a CUDA device, and one elsewhere, because a larger batch is no faster there. `jobs` is
    the number of processes that train at the same time, each on a CUDA device of its own or with
    its share of the CPU. `processes` train each run together.
    """

    device: torch.device
    backbones: Backbones
    switches: Switches = field(default_factory=Switches)
    stack: int | None = None
    jobs: int = 1
    processes: Processes = ALONE

    @property
    def one_at_a_time(self) -> bool:
        """Whether every run is trained in a pass of its own."""
        return self.stack == 1 or (self.stack is None and self.device.type != "cuda")

    def share(self, part: float) -> float:
        """This process's share of a part of the device's memory."""
        return part if self.device.type == "cuda" else part / self.jobs


def set_up(
    device: torch.device,
    switches: Switches | None = None,
    *,
    stack: int | None = None,
    jobs: int = 1,
    processes: Processes = ALONE,
) -> DeviceSetup:
    """Set up a device; no backbone is loaded yet.

    Raises: UsageError for a `stack` or `jobs` below one, for more jobs than there are devices of a
    type that serves one process, or for what several `processes` cannot do together.
    """
    if stack is not None and stack < 1:
        raise UsageError(f"a pass holds at least one run (stack = {stack}).")
    if jobs < 1:
        raise UsageError(f"runs are trained by at least one process (jobs = {jobs}).")
    if jobs > 1 and device.type != "cpu":
        _check_devices(device, jobs)
    switches = switches or Switches()
    if processes.count > 1:
        _check_together(processes.count, stack=stack, jobs=jobs, compile=switches.compile)
        stack = 1
    return DeviceSetup(
        device=device,
        backbones=Backbones(device),
        switches=switches,
        stack=stack,
        jobs=jobs,
        processes=processes,
    )


def _check_together(count: int, *, stack: int | None, jobs: int, compile: bool) -> None:
    """Refuse what processes that train each run together cannot do. Raises: UsageError."""
    refused = {"--stack": (stack or 1) > 1, "--jobs": jobs > 1, "--compile": compile}
    for option in (name for name, asked in refused.items() if asked):
        raise UsageError(
            f"{count} processes that train one run together take no {option}.",
            hint="Leave it out, or start the command without torchrun.",
        )


def _check_devices(device: torch.device, jobs: int) -> None:
    if str(device) != device.type:
        raise UsageError(
            f"jobs = {jobs} takes as many devices, and '{device}' is one of them.",
            hint=f"--device {device.type} takes the first {jobs}.",
        )
    found = torch.cuda.device_count() if device.type == "cuda" else 1
    if jobs > found:
        raise UsageError(
            f"jobs = {jobs} takes one device of type {device.type} each, and there "
            f"{'is' if found == 1 else 'are'} {found}.",
            hint="On one device, --stack trains several runs in one pass.",
        )
