"""The check of a loaded network's inputs before each call.

Shape letters: B batch, S input size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from idat_zoo.backbones.ensemble import Ensemble
from idat_zoo.backbones.network import Network
from idat_zoo.backbones.walk import Partway
from idat_zoo.errors import InputError

SLACK = 0.25
"""How far normalised values may exceed the range, as a share of its width: resizing overshoots."""


@dataclass(frozen=True, kw_only=True)
class InputCheck:
    """A forward pre-hook that accepts uint8 images, or floats that may be normalised pixels.

    It reads the values of floats, never those of uint8. It checks nothing under torch.compile and
    torch.export, and no values that cannot be read (vmap, meta).

    Raises: InputError.
    """

    size: int | None
    low: float
    high: float

    def __call__(
        self, network: Network | Ensemble, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Check the arguments with which `network` is called."""
        if torch.compiler.is_compiling():
            return
        images = args[0] if args else kwargs.get("start")
        if isinstance(images, Partway):
            return
        fault, hint = self._fault(images, network.mean.dtype)
        if fault:
            size = self.size or "S"
            raise InputError(
                f"a network takes uint8 images [B, 3, {size}, {size}], or floats normalised to "
                f"{self.low:.2f} … {self.high:.2f}; got {fault}.",
                hint=hint,
            )

    def _fault(self, images: object, expected: torch.dtype) -> tuple[str, str]:
        """The fault of an input and its remedy; nothing where the input is right.

        Floats need the `expected` type, that of the network's own parameters, except under
        autocast.
        """
        if not isinstance(images, Tensor):
            name = f"{type(images).__module__}.{type(images).__qualname__}"
            return name.removeprefix("builtins."), "network(transform(Image.open(path))[None])"
        if images.ndim != 4 or images.shape[1] != 3:
            lacks = images.ndim == 3 and images.shape[0] == 3
            hint = "Add the batch: images[None]" if lacks else "torch.stack of what transform gives"
            return f"the shape {list(images.shape)}", hint
        if self.size is not None and images.shape[2:] != (self.size, self.size):
            return f"the shape {list(images.shape)}", "transform(image) makes that size"
        if len(images) == 0:
            return "no image", "A batch holds at least one"
        if images.dtype == torch.uint8:
            return "", ""
        if not images.is_floating_point():
            return str(images.dtype), "Pixels 0 … 255: images.to(torch.uint8)"
        least, most = _extremes(images)
        slack = SLACK * (self.high - self.low)
        if self.low - slack <= least and most <= self.high + slack:
            if images.dtype == expected or torch.is_autocast_enabled(images.device.type):
                return "", ""
            return str(images.dtype), f"images.to({expected})"
        return (
            f"{images.dtype} from {least:.4g} to {most:.4g}",
            "Pixels 0 … 255: images.to(torch.uint8); 0 … 1: (255 * images).round().to(torch.uint8)",
        )


def _extremes(images: Tensor) -> tuple[float, float]:
    """The least and the largest value; 0 where values cannot be read."""
    try:
        least, most = images.detach().aminmax()
        return least.item(), most.item()
    except RuntimeError:  # inside vmap, of meta tensors, of none
        return 0.0, 0.0


def check_inputs(network: Network | Ensemble) -> None:
    """Check each call of a network from now on."""
    bounds = torch.stack([-network.mean / network.std, (1 - network.mean) / network.std])
    spec = network.backbone.spec
    check = InputCheck(
        size=None if spec.args.get("dynamic_img_size") else spec.img_size,
        low=bounds.min().item(),
        high=bounds.max().item(),
    )
    network.register_forward_pre_hook(check, with_kwargs=True)
