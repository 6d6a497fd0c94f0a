"""SHA-256 digests of image files and of pixels, by which data is recognised. Loads no torch.

Shape letters: H W image.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from idat_zoo.data.image_file import UnreadableImageError, decode_image, without_pillow_warnings
from idat_zoo.data.parallel import in_parallel
from idat_zoo.data.reading import Reading


def hash_files(paths: Sequence[Path], reading: Reading) -> tuple[list[str], dict[int, str]]:
    """The SHA-256 of each file's bytes, '' where it cannot be read, and the reasons by index."""
    unreadable: dict[int, str] = {}
    hashes: list[str] = []

    def hash_file(path: Path) -> str | OSError:
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            return error

    for place, found in enumerate(in_parallel(hash_file, paths, reading.workers)):
        hashes.append(found if isinstance(found, str) else "")
        if isinstance(found, OSError):
            unreadable[place] = f"cannot be read: {found.strerror}"
    return hashes, unreadable


def examine_files(
    paths: Sequence[Path], reading: Reading, heard: Callable[[int], None]
) -> tuple[list[str], dict[int, str]]:
    """The same as `hash_files`, with each file decoded too and files that are no image refused.

    The pixels are dropped. `heard` is called with the number of files that are done.
    """
    unreadable: dict[int, str] = {}
    hashes: list[str] = []

    def examine(path: Path) -> tuple[str, str]:
        try:
            content = path.read_bytes()
        except OSError as error:
            return "", f"cannot be read: {error.strerror}"
        sha256, reason = hashlib.sha256(content).hexdigest(), ""
        try:
            decode_image(content, 1, max_megapixels=reading.max_megapixels)
        except UnreadableImageError as error:
            reason = str(error)
        return sha256, reason

    with without_pillow_warnings():
        for place, (sha256, reason) in enumerate(in_parallel(examine, paths, reading.workers)):
            hashes.append(sha256)
            if reason:
                unreadable[place] = reason
            heard(place + 1)
    return hashes, unreadable


def digest_images(images: Iterable[UInt8[np.ndarray, "H W 3"]]) -> str:
    """SHA-256 over the SHA-256 of each image's pixels, in order."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(hashlib.sha256(np.ascontiguousarray(image).data).digest())
    return digest.hexdigest()
