"""Write registry/adapters.toml from the adapter classes: `make registry`.

The shelf lets `idat list` and the check of recipes know every family without loading torch.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from idat_zoo.adapters import ADAPTERS, build_adapter
from idat_zoo.recipe import AdapterChoice, Backbone, Pair
from idat_zoo.registry.families import describe_family
from idat_zoo.registry.load import Registry, load_registry

if TYPE_CHECKING:
    from idat_zoo.adapters.base import Adapter

TARGET = Path(__file__).with_name("adapters.toml")
HEADER = (
    "# Source: written by command from the classes in idat_zoo/adapters; "
    "change those, not this file.\n\n"
)


def render_adapters() -> str:
    """The shelf as TOML: every family, with its parameter counts on the registry's pairs."""
    registry = load_registry()
    families = {
        name: _family(build_adapter(AdapterChoice(name=name)), registry) for name in ADAPTERS
    }
    return HEADER + tomli_w.dumps(families)


def _family(adapter: "Adapter", registry: Registry) -> dict[str, Any]:
    return describe_family(adapter) | {
        "parameters": {
            name: counts
            for name, pair in registry.pairs.items()
            if (counts := _counts(adapter.name, pair))
        },
    }


def _counts(family: str, pair: Pair) -> dict[str, int]:
    """How many numbers the family trains on a pair; none where it cannot stand on both networks."""
    if pair.teacher is None:
        return {}
    counts = {"student": _count(family, pair.student), "teacher": _count(family, pair.teacher)}
    known = {role: count for role, count in counts.items() if count is not None}
    return known if len(known) == len(counts) else {}


def _count(family: str, spec: Backbone) -> int | None:
    """How many numbers the family trains on a backbone, head left out; None on one it cannot."""
    import torch

    from idat_zoo.backbones.frozen import describe_anatomy
    from idat_zoo.randomness import generator

    adapter, anatomy = build_adapter(AdapterChoice(name=family)), describe_anatomy(spec)
    if adapter.why_not(anatomy):
        return None
    with torch.device("meta"):
        created = adapter.create(anatomy, generator(0, "count", family))
    return sum(tensor.numel() for tensor in created.trainable.values())


def main() -> None:
    """Write the file."""
    TARGET.write_text(render_adapters())
    print(TARGET)


if __name__ == "__main__":
    main()
