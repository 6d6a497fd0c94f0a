"""Random masks of a training step, by site and block.

Shape letters: B batch, N tokens.
"""

from torch import Tensor

from idat_zoo.adapters.masks import Mask
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Tensors
from idat_zoo.randomness import Draws


def draw_mask(key: str, mask: Mask, batch: int, draws: Draws) -> Tensor:
    """One declared mask for a batch, the same for every image where it says `alike`."""
    shape = (1 if mask.alike else batch, *mask.shape)
    values = draws.normal(key, *shape) if mask.noise else draws.keep(key, mask.rate, *shape)
    return values.repeat(batch, *[1] * len(mask.shape)) if mask.alike else values


def mask_prefix(site: Site, block: int) -> str:
    """What the names of a site's masks begin with."""
    return f"blocks.{block}.{site}."


def masks_at(masks: Tensors, site: Site, block: int) -> dict[str, Tensor]:
    """The masks that an adapter is handed at a site, by their own names."""
    prefix = mask_prefix(site, block)
    return {n.removeprefix(prefix): m for n, m in masks.items() if n.startswith(prefix)}


def by_rows(masks: Tensors, x: Tensor) -> dict[str, Tensor]:
    """Masks of images for the rows of x: where an image's windows are rows, so are its mask's."""
    rows = x.shape[0]

    def of_rows(mask: Tensor) -> Tensor:
        if mask.shape[0] == rows:
            return mask
        if mask.shape[1] == 1:  # one value for all tokens of an image
            return mask.repeat_interleave(rows // mask.shape[0], dim=0)
        return mask.reshape(rows, -1, *mask.shape[2:])

    return {name: of_rows(mask) for name, mask in masks.items()}
