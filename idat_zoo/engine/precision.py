"""Devices and number formats: what `auto` means, and how frozen weights are cast."""

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from idat_zoo.backbones.network import Network
from idat_zoo.errors import DeviceError, UsageError
from idat_zoo.recipe import Recipe
from idat_zoo.switches import Switches

Precision = Literal["float32", "bf16", "fp16"]
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def find_device(name: str) -> torch.device:
    """`auto`: CUDA where there is one, else MPS, else CPU. Raises: UsageError, DeviceError."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"unknown device '{name}'.", hint="Known: auto, cpu, cuda, cuda:N, mps")
    found = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }[device.type]
    if (device.index or 0) >= found:
        raise DeviceError(
            f"there is no device '{name}' here: found {found} of type {device.type}.",
            hint="--device cpu runs everywhere; `idat env` lists what there is.",
        )
    return device


def resolve_precision(recipe: Recipe, device: torch.device) -> Recipe:
    """Replace `auto`: bf16 from compute capability 8.0, fp16 below, float32 off CUDA."""
    if recipe.precision != "auto":
        return recipe
    precision: Precision = "float32"
    if device.type == "cuda":
        precision = "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return recipe.model_copy(update={"precision": precision})


def cast_frozen(network: Network, precision: Precision) -> None:
    """Hold the backbone's linear weights in the compute format, once.

    Norms, tokens, adapters and head stay float32, and so does a backbone of whose tensors an
    adapter trains copies. For a network that is used with `autocast`.
    """
    if network.adapter.trains_copies:
        return
    for module in network.body.modules():
        if isinstance(module, nn.Linear):
            module.to(DTYPES[precision])


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The context in which forward passes of that precision run."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


@contextlib.contextmanager
def computing(switches: Switches, device: torch.device) -> Iterator[None]:
    """What switches set for a whole process, until the block ends.

    `keep_memory` stays on: glibc then takes large tensors from memory that was freed before, not
    from pages that the system must clear first.
    """
    if switches.keep_memory and device.type == "cpu":
        _keep_freed_memory()
    before = torch.are_deterministic_algorithms_enabled()
    if switches.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS demands it
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _keep_freed_memory() -> None:
    """Tell glibc; other C libraries are left as they are."""
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1)):
        libc.mallopt(parameter, value)


def describe_device(device: torch.device) -> str:
    """The device's model, and on a CPU the number of threads, on which bits depend."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"{device.type}: {_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def _processor() -> str:
    """The CPU's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
