"""The writing of files: atomically, and with equal bytes for equal content."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from idat_zoo.errors import RunFolderError, way_to_write

if TYPE_CHECKING:
    from torch import Tensor

OUT = "another --out"
"""What most hints about a place ask for."""


def check_place(path: Path, *, other: str = OUT) -> None:
    """Check before long work that `write_whole` can write a file here, without writing anything.

    Folders that are missing above it will be made, so the nearest one that exists is asked.

    Raises: RunFolderError as `write_whole`.
    """
    try:
        _check_replaceable(path)
        above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _unwritable(path, error, other) from error


def _check_replaceable(path: Path) -> None:
    """Refuse to put a file in the place of a folder, a device or a pipe. Raises: OSError."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a device or a pipe, and no file")


def write_whole(path: Path, content: bytes, *, other: str = OUT) -> None:
    """Write a file atomically: to a temporary file beside it, which is then renamed.

    A link stays, and the file that it leads to is written.

    Missing folders above it are made. `other` is what an error's hint asks for.

    Raises: RunFolderError if the folder cannot be written or the disk is full; a file that was at
    `path` before is then unchanged.
    """
    path = path.resolve() if path.is_symlink() else path  # its target is written, the link stays
    beside = _beside(path)
    try:
        _check_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # if the parent is a file, there is nothing to remove
            beside.unlink(missing_ok=True)
        raise _unwritable(path, error, other) from error


def _beside(path: Path) -> Path:
    """The path under which a file or folder is made before its rename; `path` may be `.` or `/`."""
    return path.parent / f".{path.name}.part"


def _unwritable(path: Path, error: OSError, other: str = OUT) -> RunFolderError:
    return RunFolderError(
        f"cannot write '{path}': {error.strerror or error}",
        hint=way_to_write(error, other=other),
    )


@contextlib.contextmanager
def alone(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file; if another process holds it, call `waiting` and wait for its release."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill, renamed to `folder` on success and deleted on failure.

    Raises: RunFolderError if `folder` exists and is not an empty folder, or the disk is full.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RunFolderError(f"'{folder}' is there already.", hint="Choose another --out.")
    beside = _beside(folder)
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        yield beside
        beside.rename(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    except RunFolderError as error:
        if isinstance(
            error.__cause__, OSError
        ):  # it names a file in `beside`, which users do not know
            raise _unwritable(folder, error.__cause__) from error.__cause__
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def dump_json(document: Mapping[str, Any]) -> bytes:
    """Indented JSON, with keys in the given order. Raises: ValueError for not-a-number."""
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def dump_tensors(tensors: Mapping[str, "Tensor"]) -> bytes:
    """Safetensors bytes, equal for equal tensors.

    There is a single metadata key, because safetensors 0.8 writes several keys in random order.
    """
    import safetensors.torch

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(contiguous, metadata={"format": "pt"})


def parse_tensors(content: bytes) -> "dict[str, Tensor]":
    """Tensors on CPU from safetensors bytes. Raises: ValueError for anything else."""
    import safetensors.torch

    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise ValueError(f"not a whole safetensors file ({error})") from None


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
