"""Weights of ViTs in the `.npz` files of Google's JAX code, loaded by timm's own function.

timm's function copies what it finds and says nothing of what the network has besides: parameters
that it leaves at their random start, and arrays that it broadcasts. Both are refused here.
"""

import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

BLOCK = re.compile(r"(?:^|/)encoderblock_(\d+)/")
STACKED = "Transformer/encoderblock/LayerNorm_0/scale"
"""The end of the name of an array with a row for each block, in the files of big_vision."""


class _Copies(TorchFunctionMode):
    """Records the tensors that are copied into, and refuses to copy one of another shape."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._names = {tensor.data_ptr(): name for name, tensor in tensors.items()}
        self.filled: set[str] = set()

    def __torch_function__(
        self, func: Any, types: object, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs the function. Raises: ValueError for a copy of another shape."""
        if getattr(func, "__name__", "") == "copy_":
            into, source = args[:2]
            name = self._names.get(into.data_ptr())
            if name is not None and into.shape != source.shape:
                raise ValueError(f"{name} is {list(source.shape)}, expected {list(into.shape)}")
            if name is not None:
                self.filled.add(name)
        return func(*args, **(kwargs or {}))


def load_npz(body: nn.Module, content: bytes) -> set[str]:
    """Load a file's arrays into a network; returns the names of parameters that it has none for.

    Position embeddings and patches of another size are resampled as timm does it. Arrays of the
    classifier are left out.

    Raises: ValueError for a network that is no ViT, another number of blocks, or another shape;
    what timm's function and NumPy raise for other files that do not fit.
    """
    module: Any = body
    if not hasattr(body, "load_pretrained") or not hasattr(body, "blocks"):
        raise ValueError(f".npz files are of ViTs, and this is a {type(body).__name__}")
    count, depth = _num_blocks(content), len(module.blocks)
    if count != depth:
        raise ValueError(f"they have {count} blocks, expected {depth}")
    parameters = dict(body.named_parameters())
    copies = _Copies(parameters)
    with copies:
        module.load_pretrained(io.BytesIO(content))
    return parameters.keys() - copies.filled


def _num_blocks(content: bytes) -> int:
    """The number of a file's blocks; timm leaves out those that the network does not have."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        stacked = [name for name in arrays.files if name.endswith(STACKED)]
        if stacked:
            return len(arrays[stacked[0]])
        numbers = [int(found[1]) for name in arrays.files if (found := BLOCK.search(name))]
        return max(numbers, default=-1) + 1
