"""Write registry/adapters.toml from the adapter classes: `make registry`.

The shelf lets `idat list` and the check of recipes know every family without loading torch.
"""

from pathlib import Path

import tomli_w

from idat_zoo.adapters import ADAPTERS, build_adapter
from idat_zoo.recipe import AdapterChoice, Backbone
from idat_zoo.registry.families import describe_family
from idat_zoo.registry.load import load_registry

TARGET = Path(__file__).with_name("adapters.toml")
HEADER = (
    "# Source: written by command from the classes in idat_zoo/adapters; "
    "change those, not this file.\n\n"
)


def render_adapters() -> str:
    """The shelf as TOML: every family, with its parameter counts on the registry's pairs."""
    pairs = [pair for pair in load_registry().pairs.values() if pair.teacher is not None]
    specs = {spec.name: spec for pair in pairs for spec in pair.backbones()}
    numbers = {name: _numbers(spec) for name, spec in specs.items()}

    def counts(family: str) -> dict[str, dict[str, int]]:
        """By pair, where the family can stand on both networks."""
        own = {name: found[family] for name, found in numbers.items() if family in found}
        return {
            pair.name: {"student": own[student], "teacher": own[teacher]}
            for pair in pairs
            for teacher, student in [[spec.name for spec in pair.backbones()]]
            if {teacher, student} <= own.keys()
        }

    families = {
        name: describe_family(build_adapter(AdapterChoice(name=name)))
        | {"parameters": counts(name)}
        for name in ADAPTERS
    }
    return HEADER + tomli_w.dumps(families)


def _numbers(spec: Backbone) -> dict[str, int]:
    """How many numbers each family trains on a backbone that can carry it, head left out."""
    import torch

    from idat_zoo.backbones.frozen import describe_anatomy
    from idat_zoo.randomness import generator

    anatomy, found = describe_anatomy(spec), {}
    for name in ADAPTERS:
        adapter = build_adapter(AdapterChoice(name=name))
        if not adapter.why_not(anatomy):
            with torch.device("meta"):
                created = adapter.create(anatomy, generator(0, "count", name))
            found[name] = sum(tensor.numel() for tensor in created.trainable.values())
    return found


def main() -> None:
    """Write the file."""
    TARGET.write_text(render_adapters())
    print(TARGET)


if __name__ == "__main__":
    main()
