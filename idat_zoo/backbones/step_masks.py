"""The random masks of a training step, and their names by block and site.

Shape letters: B batch, N tokens.
"""

from collections.abc import Mapping

from torch import Tensor

from idat_zoo.adapters.masks import Mask
from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Tensors
from idat_zoo.randomness import Draws


def draw_mask(key: str, mask: Mask, batch: int, draws: Draws) -> Tensor:
    """Draw one declared mask for a batch, `[B, …]`; with `alike` it is equal for all images."""
    shape = (1 if mask.alike else batch, *mask.shape)
    values = draws.normal(key, *shape) if mask.noise else draws.keep(key, mask.rate, *shape)
    return values.repeat(batch, *[1] * len(mask.shape)) if mask.alike else values


def mask_prefix(site: Site, block: int) -> str:
    """The prefix of the names of all masks at a site of a block."""
    return f"blocks.{block}.{site}."


def masks_at(masks: Tensors, site: Site, block: int) -> dict[str, Tensor]:
    """The masks at a site of a block, by the names that the adapter declared."""
    prefix = mask_prefix(site, block)
    return {n.removeprefix(prefix): m for n, m in masks.items() if n.startswith(prefix)}


def by_rows(masks: Tensors, x: Tensor) -> dict[str, Tensor]:
    """Reshape masks of B images to the rows of x; with windowed attention, a window is a row."""
    rows = x.shape[0]

    def of_rows(mask: Tensor) -> Tensor:
        if mask.shape[0] == rows:
            return mask
        if mask.shape[1] == 1:  # one value for all tokens of an image
            return mask.repeat_interleave(rows // mask.shape[0], dim=0)
        return mask.reshape(rows, -1, *mask.shape[2:])

    return {name: of_rows(mask) for name, mask in masks.items()}


def of_first_tokens(masks: Tensors, declared: Mapping[str, Mask]) -> dict[str, Tensor]:
    """Cut masks of all tokens to those of the first tokens, for which `declared` has the shapes.

    Masks are drawn for all tokens, so that draws do not depend on how many are computed.
    """
    return {name: mask[:, : declared[name].shape[0]] for name, mask in masks.items()}
