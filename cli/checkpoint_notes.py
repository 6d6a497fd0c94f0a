"""Notes on stderr about the checkpoints that a command was given."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from idat_zoo.cli import screen

if TYPE_CHECKING:
    from idat_zoo.checkpoint import Config, Reference


def tell_diverged(configs: Mapping[str, "Config"]) -> None:
    """Print a note for each adapter whose training diverged."""
    from idat_zoo.results import DIVERGED

    for name, config in configs.items():
        if config.diverged:
            screen.note(f"{name}: {DIVERGED}")


def tell_cached(places: Iterable["Reference"]) -> None:
    """Print a note for each pinned checkpoint that is read from the cache, without the Hub."""
    from idat_zoo.checkpoint import CONFIG_FILE, TENSORS_FILE
    from idat_zoo.hub import HubReference, find_cached

    pinned = [one for one in places if isinstance(one, HubReference) and not one.asked]
    for place in pinned:
        if find_cached(place, (CONFIG_FILE, TENSORS_FILE)):
            screen.note(f"'{place}' is in the cache; the Hub is not asked")
