"""The tensor file of a checkpoint: safetensors alone, compared with what its config says."""

from pathlib import Path

from torch import Tensor

from idat_zoo import files
from idat_zoo.checkpoint.config import Config, TensorSpec
from idat_zoo.errors import CheckpointError

TENSORS_FILE = "adapter_model.safetensors"
MOST_HEADER = 2**20
"""The most bytes of a safetensors header; names and shapes of the deepest ViT take less."""
PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # first bytes


def read_own_tensors(path: Path, config: Config) -> dict[str, Tensor]:
    """A checkpoint's tensors, if the file is the one that its config describes.

    Raises: CheckpointError for a file that is too large, damaged, or another one.
    """
    declared = sum(spec.num_bytes for spec in config.tensors.values())
    try:
        size = path.stat().st_size
        if size > declared + MOST_HEADER:
            raise CheckpointError(
                f"'{path}' has {size:,} bytes; the tensors its config names take {declared:,}."
            )
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read '{path}': {error.strerror}") from None
    tensors = read_tensors(content, path)
    found = {name: spec_of(tensor) for name, tensor in tensors.items()}
    if found != config.tensors:
        differing = sorted(
            name
            for name in found.keys() | config.tensors.keys()
            if found.get(name) != config.tensors.get(name)
        )
        raise CheckpointError(
            f"'{path}' does not hold the tensors its config names: {', '.join(differing[:4])}."
        )
    if files.sha256(path) != config.tensors_sha256:
        raise CheckpointError(f"'{path}' is not the file its config was written for (SHA-256).")
    return tensors


def map_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that was checked by `read_own_tensors`, mapped rather than read."""
    import safetensors.torch

    return safetensors.torch.load_file(path)


def read_tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file's bytes. Raises: CheckpointError, which names the path."""
    try:
        return files.parse_tensors(content)
    except ValueError as error:
        if content[:2] not in PICKLES:  # such first bytes alone may be a safetensors header's size
            raise CheckpointError(f"'{path}' is damaged: {error}") from None
        raise CheckpointError(
            f"'{path}' is a pickle (torch.save), not safetensors; it is not opened.",
            hint="Pickles can run code when they are read. Ask for a safetensors file.",
        ) from None


def spec_of(tensor: Tensor) -> TensorSpec:
    """The data type and shape of a tensor, as a config states them."""
    return TensorSpec(dtype=str(tensor.dtype).removeprefix("torch."), shape=tuple(tensor.shape))
