"""The transform of an image: as the images of tasks are prepared, for a network that is loaded."""

from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from idat_zoo.data.image_file import prepare
from idat_zoo.errors import InputError


@dataclass(frozen=True)
class Transform:
    """PIL image to uint8 `[3, img_size, img_size]`, prepared as the images of tasks are."""

    img_size: int

    def __call__(self, image: Image.Image) -> UInt8[Tensor, "3 S S"]:
        """Resize an image. It is not normalised: the network does that itself.

        Raises: UnreadableImageError for floating-point pixels, whose range is not known; InputError
        for anything but a PIL image.
        """
        if not isinstance(image, Image.Image):
            raise InputError(
                f"a transform takes a PIL image; got {type(image).__name__}.",
                hint="Of a path: Image.open(path); of a uint8 array: Image.fromarray(array)",
            )
        return torch.from_numpy(prepare(image, self.img_size).transpose(2, 0, 1).copy())
