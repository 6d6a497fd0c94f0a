"""A file of decoded pixels: uint8 [N, S, S, 3], written image by image and memory-mapped.

Shape letters: N images, S input size.
"""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from idat_zoo.errors import DataError, way_to_write


@contextmanager
def nameless_file(what: str) -> "Iterator[tempfile._TemporaryFileWrapper[bytes]]":
    """A temporary file whose pixels can be mapped, and that vanishes with the process.

    `what` names the images in the error.

    Raises: DataError where it cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile() as file:
            yield file
    except OSError as error:
        raise DataError(
            f"{what}: no place for the decoded images: {error.strerror}",
            hint=way_to_write(error, other="another folder by IDAT_CACHE_DIR or TMPDIR"),
        ) from error


def write_at(target: int, content: memoryview, offset: int) -> None:
    """Write the whole content at an offset of an open file.

    Raises: OSError; for a disk that takes only a part of it, the one of a full disk.
    """
    if os.pwrite(target, content, offset) < content.nbytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def map_pixels(path: Path, shape: tuple[int, int, int, int]) -> UInt8[np.ndarray, "N S S 3"]:
    """A file's pixels over private memory: pages are read when they are touched.

    Writing to the array does not alter the file.
    """
    if shape[0] == 0:  # an empty file cannot be mapped
        return np.zeros(shape, dtype=np.uint8)
    return np.memmap(path, dtype=np.uint8, mode="c", shape=shape)
