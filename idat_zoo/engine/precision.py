"""Devices and their number formats: the meaning of `auto`, autocast, and casting frozen weights."""

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
    """The device of a name; `auto` is CUDA if available, else MPS, else the CPU.

    Raises: UsageError for an unknown name; DeviceError for a device that this machine lacks.
    """
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
    """The recipe with `precision = "auto"` replaced by the device's number format.

    It is bf16 on CUDA from compute capability 8.0, fp16 on older CUDA devices, else float32.
    """
    if recipe.precision != "auto":
        return recipe
    precision: Precision = "float32"
    if device.type == "cuda":
        precision = "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return recipe.model_copy(update={"precision": precision})


def cast_frozen(network: Network, precision: Precision) -> None:
    """Convert the backbone's linear layers to the compute format once, not at every forward pass.

    Norms, tokens, adapters and head stay in float32. So does the whole backbone if the adapter
    trains copies of its tensors. The network must then be run under `autocast`.
    """
    if network.adapter.trains_copies:
        return
    for module in network.body.modules():
        if isinstance(module, nn.Linear):
            module.to(DTYPES[precision])


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The autocast context for forward passes in a precision; float32 needs none."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


@contextlib.contextmanager
def computing(switches: Switches, device: torch.device) -> Iterator[None]:
    """Apply the switches that act on the whole process until the block ends.

    `keep_memory` is not undone. With it, glibc allocates large tensors from memory that was
    freed before, not from new pages that the system must clear first.
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
        if torch.are_deterministic_algorithms_enabled() != before:  # setting it imports a compiler
            torch.use_deterministic_algorithms(before)


def _keep_freed_memory() -> None:
    """Configure glibc's allocator; nothing is done for other C libraries."""
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1)):
        libc.mallopt(parameter, value)


def describe_device(device: torch.device) -> str:
    """The device's model and, off CUDA, the number of threads, which can change the last bits."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"{device.type}: {_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def _processor() -> str:
    """The CPU's model name, or its architecture if the system does not report a name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
