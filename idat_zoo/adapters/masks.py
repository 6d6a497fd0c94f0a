"""The random masks that an adapter asks for in training, which the engine draws anew each step."""

from dataclasses import dataclass

from torch import Tensor

from idat_zoo.adapters.tensors import Tensors


@dataclass(frozen=True, kw_only=True)
class Mask:
    """A random mask that the engine draws anew in each step: its shape for one image and its rate.

    The mask arrives as a tensor `[B, *shape]`, 0 with probability `rate`, else 1 / (1 - rate).
    `with_drop_path` takes the rate from the block's drop path, in draws of its own. `alike` draws
    once for all images of the batch. `noise` draws standard normal values instead; it has no rate.
    """

    shape: tuple[int, ...]
    rate: float = 0.0
    with_drop_path: bool = False
    alike: bool = False
    noise: bool = False


def masked(x: Tensor, masks: Tensors, name: str) -> Tensor:
    """x times a mask in training, where the engine supplies one; x itself in evaluation."""
    return x * masks[name] if name in masks else x
