"""Timing of work on a device, and a warning for number formats that are slow there."""

import time
from collections.abc import Callable
from functools import cache

import torch
from torch.nn.functional import linear

from idat_zoo.engine.precision import DTYPES, describe_device

TOKENS, WIDTH, HIDDEN = 197, 192, 768
"""The sizes of fc1 in a ViT-Ti block: tokens of a 224 x 224 image, and widths in and out."""
IMAGES = {"cpu": 1, "cuda": 64, "mps": 64}
"""The number of images whose product takes about a millisecond, by type of device."""
MOST_ROUNDS, ENOUGH_SECONDS = 20, 0.8
SLOW = 1.5
"""The ratio of times from which a format counts as slow; noise of a busy machine stays below it."""


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """The time of a call in seconds, until the device has finished all of its work."""
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@cache
def times_as_long(precision: str, device: torch.device) -> float:
    """The time of one small matrix product in a precision, divided by its time in float32.

    The ratio is that of the best time to float32's lower quartile, so on a busy machine it is
    rather too low: a single lucky float32 time cannot cause a warning. It is measured once per
    process, on constants, so that no random state is read.
    """
    rows = IMAGES[device.type] * TOKENS

    def product(dtype: torch.dtype) -> Callable[[], object]:
        x = torch.ones(rows, WIDTH, device=device, dtype=dtype)
        weight = torch.ones(HIDDEN, WIDTH, device=device, dtype=dtype)
        return lambda: linear(x, weight)

    plain, asked = product(torch.float32), product(DTYPES[precision])
    plain()
    asked()  # the first time, libraries and kernels are loaded
    plain_times: list[float] = []
    asked_times: list[float] = []
    while len(asked_times) < MOST_ROUNDS and sum(plain_times + asked_times) < ENOUGH_SECONDS:
        plain_times.append(seconds(plain, device))  # alternating, so that both see the same load
        asked_times.append(seconds(asked, device))
    return min(asked_times) / sorted(plain_times)[len(plain_times) // 4]


def slowness(precision: str, device: torch.device) -> str:
    """A warning if a number format is clearly slower than float32 on a device, else ''."""
    if precision == "float32":
        return ""
    ratio = times_as_long(precision, device)
    if ratio < SLOW:
        return ""
    return (
        f"precision={precision} is slow here: a small product takes {ratio:.1f} times as long as "
        f"in float32 ({describe_device(device)})"
    )
