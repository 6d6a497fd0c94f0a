"""The memory of a device, its peak, and an estimate of how much of it a training step needs."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from idat_zoo.backbones.prefix import prefix_bytes
from idat_zoo.engine.learner import Learner
from idat_zoo.engine.precision import autocast

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
CLEAR_REFS, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
MARGINS = {"cpu": 4.0, "cuda": 1.2}
"""Upper bounds of a step's peak memory, as multiples of what it keeps for its backward pass.

On a CPU the C library holds freed memory in fragments that the next step cannot always reuse:
`python benchmarks/step_memory.py FAMILY` measured 3.0 times for vera, 3.3 for lora and 3.9 for
pvera (AMD EPYC, one thread).
"""


def total_memory(device: torch.device) -> int:
    """The memory of a device in bytes; for a CPU, the part that this process may use."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return min(_machine_memory("MemTotal"), _cgroup_bytes("memory.max"))


def free_memory(device: torch.device) -> int:
    """The unused part of `total_memory` at present, in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    left = _cgroup_bytes("memory.max") - _cgroup_bytes("memory.current", default=0)
    return min(_machine_memory("MemAvailable"), left)


def _machine_memory(name: str) -> int:
    """A value of Linux's /proc/meminfo in bytes; on other systems the physical memory."""
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _cgroup_bytes(name: str, *, default: int = 2**62) -> int:
    """A value of the container's control group in bytes; `default` if no limit is set."""
    try:
        text = (CGROUP / name).read_text().strip()
    except OSError:
        return default
    return int(text) if text.isdigit() else default


def measure_peak(device: torch.device) -> Callable[[], int | None]:
    """Begin to measure the peak of memory; what is returned tells it in bytes, from now on.

    On CUDA it is what torch allocated on the device; on a CPU what the process held in physical
    memory, with its libraries and what it held before. It is None where this is unknown: on other
    devices, and for a CPU where Linux does not let the peak be reset.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return lambda: torch.cuda.max_memory_allocated(device)
    if device.type != "cpu":
        return lambda: None
    try:
        CLEAR_REFS.write_text("5")  # man 5 proc_pid_clear_refs: resets the peak resident set
    except OSError:
        return lambda: None
    return _peak_resident


def _peak_resident() -> int | None:
    """The peak of the resident set of this process in bytes, since it was last reset."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def step_bytes(learner: Learner) -> int:
    """The bytes that the forward passes of one step keep for its backward pass.

    They are measured by running the forward passes. Parameters and images are not counted.
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
        sides = learner.beside_constants(outputs, rows)
        loss = learner.losses(sides, learner.targets[rows])["loss"]
    for _, network in learner.pair.roles():
        for parameter in network.parameters():
            kept.pop(parameter.untyped_storage().data_ptr(), None)
    del loss
    return sum(kept.values())


def runs_in_one_pass(learner: Learner, *, share: float = 0.8) -> int:
    """The number of runs like this one that fit into the free memory in one pass, at least one.

    The memory of a step is `step_bytes` times the device's factor in `MARGINS`. Cached prefixes are
    always added, whether or not they will be cached. `share` is the part of the free memory to use.
    """
    margin = MARGINS.get(learner.device.type, MARGINS["cuda"])
    own = margin * step_bytes(learner) + _prefix_bytes(learner)
    return max(1, int(share * free_memory(learner.device) / own))


def prefixes_fit(learners: Sequence[Learner], *, share: float = 0.25) -> bool:
    """Whether the cached prefixes of all learners take at most a share of the total memory.

    The total is used, not the free memory, so that the answer is the same when a run is repeated.
    """
    needed = sum(map(_prefix_bytes, learners))
    return needed <= share * total_memory(learners[0].device)


def _prefix_bytes(learner: Learner) -> int:
    """The bytes that `cache_prefixes` needs; 0 if the learner has no prefix."""
    if not learner.has_prefix:
        return 0
    return sum(
        prefix_bytes(network, len(learner.targets), learner.prefix(role))
        for role, network in learner.pair.roles()
    )
