"""The processes that torchrun starts: their connection, and the device of each."""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from idat_zoo.engine.precision import find_device
from idat_zoo.engine.processes import Processes
from idat_zoo.errors import DeviceError, TrainingError, UsageError

PATIENCE = timedelta(days=30)
"""How long a process waits for the first one, which may load, download, evaluate or await a lock.

A first process that ends closes its connections, which the others notice at once.
"""


@contextlib.contextmanager
def connected() -> Iterator[Processes]:
    """The processes that torchrun has started; at the end, the first one tells the others to end.

    Raises: TrainingError if they cannot connect.
    """
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        store, _, _ = next(rendezvous("env://", rank, count))
        processes = Processes(rank=rank, count=count, store=store)
        distributed.init_process_group(
            "gloo", store=store, rank=rank, world_size=count, timeout=PATIENCE
        )
    except RuntimeError as error:
        raise TrainingError(
            f"the {count} processes that torchrun has started cannot connect.",
            hint="--rdzv-backend and --rdzv-endpoint of torchrun say where they meet.",
        ) from error
    try:
        yield processes
    finally:
        if not rank and not processes.lost:
            with contextlib.suppress(TrainingError):  # they have ended
                processes.tell(None)
        if not processes.lost:
            distributed.destroy_process_group()


def own_device(name: str) -> torch.device:
    """The device of this process: on CUDA, the one with its number among those of this machine.

    Raises: as `find_device`; UsageError for a device that serves one process alone; DeviceError for
    fewer CUDA devices than processes.
    """
    device = find_device(name)
    if device.type == "cpu":
        return device
    if device.type == "mps" or str(device) != device.type:
        raise UsageError(
            f"several processes train one run, and the device '{device}' serves one of them.",
            hint="--device cuda gives each its own; with --device cpu they share the processor.",
        )
    own, here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    found = torch.cuda.device_count()
    if found < here:
        raise DeviceError(
            f"{here} processes train here with a CUDA device each, and there are {found}.",
            hint=f"--nproc-per-node={found}",
        )
    torch.cuda.set_device(own)
    return torch.device("cuda", own)
