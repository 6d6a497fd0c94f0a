"""What a task is once it is decoded.

Shape letters: N images, C channels, H W image, P pixels.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from idat_zoo.data.decode import Images
from idat_zoo.data.image_file import PROCEDURE
from idat_zoo.data.listing import Listing
from idat_zoo.data.on_disk import pulled_from
from idat_zoo.recipe import Task


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images `[N, 3, H, W]`, classes, and each image's number in its source.

    `pixels_sha256` is over each image's SHA-256 in order.
    """

    images: Images
    targets: Int64[Tensor, "N"]
    index: Int64[Tensor, "N"]
    pixels_sha256: str

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def held(self) -> UInt8[Tensor, "N C H W"]:
        """The images as a tensor with colours first in memory, as training needs them."""
        return self.images[:].contiguous()


@dataclass(frozen=True, kw_only=True)
class RawPixels:
    """Pixels as the source has them, one row an image, for the baselines without any network."""

    trainval: Float[np.ndarray, "N P"]
    test: Float[np.ndarray, "M P"]


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """A task's three splits. `train` and `val` are VTAB-1K's train800 and val200.

    `task` names its classes where it does or where the images' source does.
    `unreadable` images were left out; `test_in_training` test images have the bytes of an image
    that was learnt from. `listing` is there for tasks that lie on disk.
    """

    task: Task
    train: Split
    val: Split
    test: Split
    raw_pixels: RawPixels | None = None
    listing: Listing | None = None
    unreadable: int = 0
    test_in_training: int = 0

    @property
    def trainval(self) -> Split:
        """All images that may be learnt from: `train` followed by `val`."""
        first, second = self.train, self.val
        return Split(
            images=torch.cat([first.held, second.held]),
            targets=torch.cat([first.targets, second.targets]),
            index=torch.cat([first.index, second.index]),
            pixels_sha256=fingerprint([first, second]),
        )

    @property
    def copy(self) -> str | None:
        """Where the images were pulled from; None where nothing says so."""
        return None if self.listing is None else pulled_from(self.listing.root)

    def counts(self) -> dict[str, int]:
        """How many images there are, named as `results.ImageCounts` names them."""
        return {
            "train": len(self.train),
            "val": len(self.val),
            "test": len(self.test),
            "unreadable": self.unreadable,
            "test_in_training": self.test_in_training,
        }

    @property
    def fingerprint(self) -> str:
        """SHA-256 over pixels, labels and order of all splits, and over how pixels are made.

        Two copies of a task that differ in one pixel can never be mistaken for each other.
        """
        return fingerprint([self.train, self.val, self.test])


def fingerprint(splits: Sequence[Split]) -> str:
    """See `TaskData.fingerprint`."""
    digest = hashlib.sha256(PROCEDURE.encode())
    for split in splits:
        digest.update(f"{len(split)} {split.pixels_sha256}".encode())
        digest.update(split.targets.numpy().tobytes())
    return digest.hexdigest()
