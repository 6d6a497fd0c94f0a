"""How much memory there is, and how much a training step keeps for its backward pass."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from idat_zoo.backbones.prefix import prefix_bytes
from idat_zoo.engine.learner import Learner
from idat_zoo.engine.precision import autocast

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
MARGINS = {"cpu": 4.0, "cuda": 1.2}
"""How many times what it keeps a step takes at most. On a CPU the C library holds on to freed
memory in pieces that the next step cannot always use: `python benchmarks/step_memory.py FAMILY`
gave 3.0 times for vera, 3.3 for lora and 3.9 for pvera (AMD EPYC, one thread).
"""


def total_memory(device: torch.device) -> int:
    """The device's memory in bytes; for a CPU what this process may use of the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return min(_machine_memory("MemTotal"), _cgroup_bytes("memory.max"))


def free_memory(device: torch.device) -> int:
    """What of it nobody uses now, in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    left = _cgroup_bytes("memory.max") - _cgroup_bytes("memory.current", default=0)
    return min(_machine_memory("MemAvailable"), left)


def _machine_memory(name: str) -> int:
    """A line of Linux's /proc/meminfo; elsewhere all there is."""
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _cgroup_bytes(name: str, *, default: int = 2**62) -> int:
    """A number of the container's control group; without a limit there is none."""
    try:
        text = (CGROUP / name).read_text().strip()
    except OSError:
        return default
    return int(text) if text.isdigit() else default


def step_bytes(learner: Learner) -> int:
    """The bytes that one step's forward passes keep until its backward pass, measured.

    Parameters and the images themselves are not counted.
    """
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    rows, reads = torch.arange(learner.batch_size, device=learner.device), learner.reads
    with (
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
        autocast(learner.device, learner.precision),
    ):
        outputs = {
            role: network.outputs(learner.start(role, 0, rows), learner.masks(role, 0), reads)
            for role, network in learner.pair.roles()
        }
        loss = learner.losses(outputs, learner.targets[rows])["loss"]
    for _, network in learner.pair.roles():
        for parameter in network.parameters():
            kept.pop(parameter.untyped_storage().data_ptr(), None)
    del loss
    return sum(kept.values())


def runs_in_one_pass(learner: Learner, *, share: float = 0.8) -> int:
    """How many runs like this one the free memory holds in one pass, at least one.

    What a step keeps is measured, and `MARGINS` stand for what it takes beside that. Prefixes are
    counted as if they were cached.
    """
    margin = MARGINS.get(learner.device.type, MARGINS["cuda"])
    own = margin * step_bytes(learner) + _prefix_bytes(learner)
    return max(1, int(share * free_memory(learner.device) / own))


def prefixes_fit(learners: Sequence[Learner], *, share: float = 0.25) -> bool:
    """Whether all of their prefixes take no more than a share of all memory there is.

    Not of the memory that is free, so that the answer is the same when a run is repeated.
    """
    needed = sum(map(_prefix_bytes, learners))
    return needed <= share * total_memory(learners[0].device)


def _prefix_bytes(learner: Learner) -> int:
    """What `cache_prefixes` takes; nothing where images change."""
    if not learner.has_prefix:
        return 0
    return sum(
        prefix_bytes(network, len(learner.targets), learner.prefix(role))
        for role, network in learner.pair.roles()
    )
