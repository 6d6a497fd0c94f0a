"""The random masks that an adapter asks for in training, which the engine draws anew each step."""

from dataclasses import dataclass

from torch import Tensor

from idat_zoo.adapters.tensors import Tensors


@dataclass(frozen=True, kw_only=True)
class Mask:
    """A random mask the engine draws anew each step, for one image: its shape and drop rate.

    It comes as a tensor `[B, *shape]`, 0 with probability `rate`, else 1 / (1 - rate). One that is
    `with_drop_path` has its block's rate of drop path, and draws of its own. One that is `alike`
    is drawn once, for all images. One that is `noise` has standard normal values, and no rate.
    """

    shape: tuple[int, ...]
    rate: float = 0.0
    with_drop_path: bool = False
    alike: bool = False
    noise: bool = False


def masked(x: Tensor, masks: Tensors, name: str) -> Tensor:
    """x times a mask where the engine supplied one (training), else x."""
    return x * masks[name] if name in masks else x
