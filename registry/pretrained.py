"""Image size, mean and std that timm's pretrained weights were trained with, read without timm.

They fill in what a shelf's table of a backbone leaves out; a value that the table states is kept.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from idat_zoo.errors import RecipeError
from idat_zoo.recipe import Backbone
from idat_zoo.registry.shelves import unknown
from idat_zoo.values import Frozen, Rgb

TABLE = Path(__file__).with_name("pretrained.json")
"""JSON, as it is read at every start, and tomllib is many times slower than json."""
NATIVE = "native"
"""The value by which a table may ask for timm's, instead of leaving the key out."""


class Pretrained(Frozen):
    """The image size and normalisation that weights were trained with."""

    img_size: int
    mean: Rgb
    std: Rgb


@cache
def read_table() -> tuple[str, Mapping[str, Pretrained]]:
    """The version of timm that the table was written from, and the values by ARCHITECTURE.TAG."""
    document = json.loads(TABLE.read_text(encoding="utf-8"))
    values: dict[str, Pretrained] = {}
    for row in document["values"]:
        names = row.pop("of")
        values |= dict.fromkeys(names, Pretrained.model_validate(row))
    return document["timm"], values


def with_timms_values(table: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """A shelf's table of a backbone, with missing values filled in from timm's.

    Raises: RecipeError for weights that timm does not have, unless the table states every value.
    """
    timm, tag = table.get("timm"), table.get("weights")
    left = [key for key in Pretrained.model_fields if table.get(key, NATIVE) == NATIVE]
    named = isinstance(timm, str) and isinstance(tag, str)
    if not (left and named) or tag == "random" or ":" in str(tag):
        return dict(table)
    version, known = read_table()
    values = known.get(f"{timm}.{tag}")
    if values is None:
        raise RecipeError([f"{where}: {_unknown_weights(str(timm), str(tag), version, known)}"])
    return {**table, **{key: getattr(values, key) for key in left}}


def _unknown_weights(timm: str, tag: str, version: str, known: Mapping[str, Pretrained]) -> str:
    tags: dict[str, list[str]] = {}
    for name in known:
        architecture, _, own = name.partition(".")
        tags.setdefault(architecture, []).append(own)
    fault = (
        f"weights: {unknown(f'tag of {timm}', tag, tags[timm])}"
        if timm in tags
        else f"timm: {unknown('network', timm, tags)}"
    )
    return (
        f"{fault} (timm {version}; a backbone of another timm has to say img_size, mean and std "
        "itself)"
    )


def differences(backbone: Backbone) -> list[str]:
    """One sentence for each value of a backbone that differs from what its weights saw."""
    if not backbone.from_hub:
        return []
    values = read_table()[1].get(f"{backbone.timm}.{backbone.weights}")
    if values is None:
        return []
    return [
        f"backbone '{backbone.name}': {key} is {_shown(getattr(backbone, key))}; "
        f"{backbone.timm}.{backbone.weights} was trained with {_shown(getattr(values, key))}"
        for key in Pretrained.model_fields
        if getattr(backbone, key) != getattr(values, key)
    ]


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
