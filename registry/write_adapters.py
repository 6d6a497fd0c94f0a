"""Write registry/adapters.toml and parameters.toml from the adapter classes: `make registry`.

With these files, `idat list` and the checks of recipes know every family without loading torch.
"""

from pathlib import Path

import tomli_w

from idat_zoo.adapters import ADAPTERS, build_adapter
from idat_zoo.recipe import Backbone
from idat_zoo.registry.families import describe_family
from idat_zoo.registry.load import load_registry
from idat_zoo.specs import AdapterSpec

TARGET = Path(__file__).with_name("adapters.toml")
PARAMETERS = Path(__file__).with_name("parameters.toml")
HEADER = (
    "# Source: written by command from the classes in idat_zoo/adapters; "
    "change those, not this file.\n\n"
)


def render_adapters() -> str:
    """The descriptions of all built-in families as TOML."""
    return HEADER + tomli_w.dumps(
        {name: describe_family(build_adapter(AdapterSpec(name=name))) for name in ADAPTERS}
    )


def render_parameters() -> str:
    """The number of parameters that each family trains on each pair, as TOML."""
    pairs = [pair for pair in load_registry().pairs.values() if pair.teacher is not None]
    specs = {spec.name: spec for pair in pairs for spec in pair.backbones()}
    numbers = {name: numbers_on(spec) for name, spec in specs.items()}
    tables = []
    for family in ADAPTERS:
        own = {name: found[family] for name, found in numbers.items() if family in found}
        lines = [
            f"{pair.name} = {{student = {own[student]}, teacher = {own[teacher]}}}\n"
            for pair in pairs
            for teacher, student in [[spec.name for spec in pair.backbones()]]
            if {teacher, student} <= own.keys()
        ]
        tables.append(f"[{family}]\n" + "".join(lines))
    return HEADER + "\n".join(tables)


def numbers_on(spec: Backbone) -> dict[str, int]:
    """The number of parameters that each family trains on a backbone, head excluded.

    Families that the backbone cannot carry are left out.
    """
    import torch

    from idat_zoo.backbones.frozen import describe_anatomy
    from idat_zoo.randomness import generator

    anatomy, found = describe_anatomy(spec), {}
    for name in ADAPTERS:
        adapter = build_adapter(AdapterSpec(name=name))
        if not adapter.why_not(anatomy):
            with torch.device("meta"):
                created = adapter.create(anatomy, generator(0, "count", name))
            found[name] = sum(tensor.numel() for tensor in created.trainable.values())
    return found


def main() -> None:
    """Write both files; the second one counts the families that the first one describes."""
    for place, render in ((TARGET, render_adapters), (PARAMETERS, render_parameters)):
        place.write_text(render())
        print(place)


if __name__ == "__main__":
    main()
