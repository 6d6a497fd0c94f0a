"""What families share that train copies of the backbone's own norms."""

from torch import Tensor

from idat_zoo.adapters.base import EMBED, Adapter, Anatomy, Site

NORMS = frozenset({Site.NORM1, Site.NORM2, Site.FINAL_NORM})


def copies_of(adapter: Adapter, anatomy: Anatomy) -> dict[str, Tensor]:
    """What a family copies (`Adapter.copies`), in float32, at all places where it stands."""
    homes = {EMBED: "embed.", anatomy.depth: "pool."}
    return {
        f"{homes.get(block, f'blocks.{block}.')}{site}.{name}": tensor.clone().float()
        for block, site in sorted(adapter.places_on(anatomy))
        for name, tensor in anatomy.frozen(site, block).items()
        if name in adapter.copies(site)
    }
