"""What a task is once it is decoded.

Shape letters: N images, C channels, H W image.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from idat_zoo.recipe import Task


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images `[N, 3, H, W]`, classes, and each image's number in its source."""

    images: UInt8[Tensor, "N C H W"]
    targets: Int64[Tensor, "N"]
    index: Int64[Tensor, "N"]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, kw_only=True)
class RawPixels:
    """Pixels as the source has them, one row an image, for the baselines without any network."""

    trainval: Float64[np.ndarray, "N P"]
    test: Float64[np.ndarray, "M P"]


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """A task's three lists. `trainval` is train800 followed by val200."""

    task: Task
    train800: Split
    val200: Split
    test: Split
    raw_pixels: RawPixels | None = None

    @property
    def trainval(self) -> Split:
        """All 1,000 images that may be learnt from."""
        first, second = self.train800, self.val200
        return Split(
            images=torch.cat([first.images, second.images]),
            targets=torch.cat([first.targets, second.targets]),
            index=torch.cat([first.index, second.index]),
        )

    def fingerprint(self) -> str:
        """SHA-256 over pixels, labels and order of all lists: two copies of a task that differ in
        one pixel can never be mistaken for each other.
        """
        digest = hashlib.sha256()
        for split in (self.train800, self.val200, self.test):
            for tensor in (split.images, split.targets):
                digest.update(str(tuple(tensor.shape)).encode())
                digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()
