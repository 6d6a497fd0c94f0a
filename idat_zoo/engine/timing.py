"""How long work takes on a device, and whether a number format is slow there."""

import time
from collections.abc import Callable
from functools import cache

import torch
from torch.nn.functional import linear

from idat_zoo.engine.precision import DTYPES, describe_device

TOKENS, WIDTH, HIDDEN = 197, 192, 768
"""The first linear layer of a ViT-Ti block, for an image of 224 x 224."""
IMAGES = {"cpu": 1, "cuda": 64, "mps": 64}
"""So many fill a device for about a millisecond."""
MOST_ROUNDS, ENOUGH_SECONDS = 20, 0.8
SLOW = 1.5
"""From here on it is not the noise of a busy machine any more."""


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long it takes, until the device has done all of it."""
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
    """How many times as long as in float32 one small product takes, or less where it is noisy.

    Its best time against float32's lower quartile: on a busy machine the best time of either may
    be far from the truth, and a warning should not rest on float32's luck. Measured once in a
    process, of constants, so that no random state is read.
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
        plain_times.append(seconds(plain, device))  # in turns, so that both meet the same load
        asked_times.append(seconds(asked, device))
    return min(asked_times) / sorted(plain_times)[len(plain_times) // 4]


def slowness(precision: str, device: torch.device) -> str:
    """What to say of a number format that is plainly slower than float32 on a device, or ''."""
    if precision == "float32":
        return ""
    ratio = times_as_long(precision, device)
    if ratio < SLOW:
        return ""
    return (
        f"precision={precision} is slow here: a small product takes {ratio:.1f} times as long as "
        f"in float32 ({describe_device(device)})"
    )
