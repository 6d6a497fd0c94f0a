"""Write docs/families.md, a section for each adapter family, from the families' own docstrings.

    python docs/write_families.py            rewrite the page
    python docs/write_families.py --check    change nothing; exit 1 if it is stale

Numbers of parameters are those of registry/parameters.toml (`make registry`).
"""

import argparse
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path

from idat_zoo.adapters import ADAPTERS, find_adapter
from idat_zoo.adapters.base import Adapter
from idat_zoo.files import write_whole
from idat_zoo.registry import load_registry
from idat_zoo.registry.parameters import load_parameters
from idat_zoo.registry.shelves import Family, Option

PAGE = Path(__file__).with_name("families.md")
PAIR = "vit_s_to_vit_b"
HEAD = """# Adapter families

Written from the families' docstrings by `make tables`; change those, not this page. Letters: B
batch, N tokens, D width, L blocks, H width inside the MLP, M heads, R bottleneck or rank, P prompts
or a patch's side, s scale. Layers compute `W x + b`. Numbers of parameters are those of the adapter
alone, with default options, on ViT-B and ViT-S (pair `vit_s_to_vit_b`).

Each family with released code is tested against tensors computed with that code: logits, loss and
every gradient agree to 1e-10 in float64. Families without released code say so, and are tested
against a closed form. The option `blocks` (`all`, `last6`, `0-5`, `0+2+5`) of families that act in
blocks is left out below.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite or check the page; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write docs/families.md.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if stale")
    check = parser.parse_args(arguments).check
    text = render()
    if PAGE.exists() and PAGE.read_text() == text:
        return 0
    print(f"{'stale' if check else 'written'}: docs/{PAGE.name}")
    if not check:
        write_whole(PAGE, text.encode())
    return int(check)


def render() -> str:
    """The page."""
    families = load_registry().adapters
    first: dict[str, str] = {}
    sections = []
    for name in ADAPTERS:
        family = find_adapter(name)
        elsewhere = first.setdefault(family.__module__, name)
        sections.append(_section(family, families[name], elsewhere))
    return "\n".join([HEAD, _contents(families), *sections])


def _contents(families: dict[str, Family]) -> str:
    lines = ["| name | | ViT-B | ViT-S | merge | stack | year |", "|---|---|---|---|---|---|---|"]
    for name in ADAPTERS:
        own = families[name]
        counts = load_parameters()[name].get(PAIR)
        numbers = ("", "") if counts is None else (f"{counts.student:,}", f"{counts.teacher:,}")
        marks = ("yes" if own.merge else "no", "yes" if own.stack else "no", str(own.year or ""))
        lines.append(f"| {' | '.join([f'[`{name}`](#{name})', own.title, *numbers, *marks])} |")
    return "\n".join(lines) + "\n"


def _section(family: type[Adapter], told: Family, first: str) -> str:
    """Its title, what it is, what its module says (in the section of its first family), options."""
    own = inspect.getdoc(family) or ""
    shared = inspect.getdoc(sys.modules[family.__module__]) or ""
    if first != told.name:
        shared = f"What it shares with its variants stands under [`{first}`](#{first})."
    parts = [f"## {told.name}", _facts(told), own, shared, _options(told)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(told: Family) -> str:
    paper = f", {told.paper}" if told.paper else ""
    year = f", {told.year}" if told.year else ""
    merge = "It can be merged." if told.merge else "It cannot be merged."
    stack = "" if told.stack else " Tasks do not share a pass."
    return f"**{told.title}**{paper}{year}. {merge}{stack}"


def _options(told: Family) -> str:
    rows = [
        f"| `{name}` | {_value(option.default)} | {_range(option)} | {option.help} |"
        for name, option in told.options.items()
        if name != "blocks"
    ]
    head = ["| option | default | range | |", "|---|---|---|---|"]
    return "\n".join([*head, *rows]) if rows else ""


def _value(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value}"


def _range(option: Option) -> str:
    if option.choices:
        return ", ".join(map(str, option.choices))
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    return ", ".join(f"{signs[bound]} {value}" for bound, value in option.bounds.items())


if __name__ == "__main__":
    sys.exit(main())
