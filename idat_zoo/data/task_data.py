"""A task's data in memory: splits of decoded images with their classes.

Shape letters: N images, C channels, H W image, P pixels.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from idat_zoo.data.decode import Images, StreamedImages
from idat_zoo.data.image_file import PROCEDURE
from idat_zoo.data.listing import Listing
from idat_zoo.data.on_disk import pulled_from
from idat_zoo.joined_images import JoinedImages
from idat_zoo.recipe import Task


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images `[N, 3, H, W]`, their classes, and each image's index in its list.

    `pixels_sha256` is over the SHA-256 of each image's pixels, in order.
    """

    images: Images
    targets: Int64[Tensor, "N"]
    index: Int64[Tensor, "N"]
    pixels_sha256: str

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def held(self) -> UInt8[Tensor, "N C H W"]:
        """The images as one contiguous tensor, which may be a copy of all."""
        return self.images[:].contiguous()

    @property
    def joined(self) -> JoinedImages:
        """The images as training reads them: where they are, with a copy of each batch alone."""
        if isinstance(self.images, JoinedImages):
            return self.images
        if isinstance(self.images, StreamedImages):
            return JoinedImages([self.held])
        return JoinedImages([self.images])


@dataclass(frozen=True, kw_only=True)
class RawPixels:
    """Pixels before any resizing, one row for each image, for baselines without a network."""

    trainval: Float[np.ndarray, "N P"]
    test: Float[np.ndarray, "M P"]


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """A task's three splits; for VTAB-1K, `train` and `val` are train800 and val200.

    `task` has the names of its classes where the shelf or the source of the images gives them.
    `unreadable` is the number of images that were left out, `test_in_training` the number of test
    images with the same bytes as an image of train or val. `listing` is None for tasks that are not
    on disk, `raw_pixels` for tasks that are.
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
        """All images to train on: `train` followed by `val`."""
        first, second = self.train, self.val
        return Split(
            images=JoinedImages([*first.joined.parts, *second.joined.parts]),
            targets=torch.cat([first.targets, second.targets]),
            index=torch.cat([first.index, second.index]),
            pixels_sha256=fingerprint([first, second]),
        )

    @property
    def copy(self) -> str | None:
        """The source and commit that the images were pulled from; None where it is not known."""
        return None if self.listing is None else pulled_from(self.listing.root)

    def counts(self) -> dict[str, int]:
        """The numbers of images, under the names of `results.ImageCounts`."""
        return {
            "train": len(self.train),
            "val": len(self.val),
            "test": len(self.test),
            "unreadable": self.unreadable,
            "test_in_training": self.test_in_training,
        }

    @property
    def fingerprint(self) -> str:
        """SHA-256 over pixels, classes and order of all splits, and the decoding procedure.

        Two copies of a task that differ in one pixel have different fingerprints.
        """
        return fingerprint([self.train, self.val, self.test])


def fingerprint(splits: Sequence[Split]) -> str:
    """`TaskData.fingerprint` for any splits."""
    digest = hashlib.sha256(PROCEDURE.encode())
    for split in splits:
        digest.update(f"{len(split)} {split.pixels_sha256}".encode())
        digest.update(split.targets.numpy().tobytes())
    return digest.hexdigest()
