"""Trained adapters that ship, as registry/published.toml lists them; told without torch."""

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import Field, Strict

from idat_zoo.recipe import Frozen
from idat_zoo.registry.shelves import check_table

SHELF = Path(__file__).with_name("published.toml")


class Published(Frozen):
    """A checkpoint that `builtin:NAME` names, and what its run reached.

    `top1` is a fraction, on test after the last epoch. `trained` counts the adapter's numbers
    without the head. `sha256` is that of its adapter_model.safetensors.
    """

    name: str
    task: str
    adapter: str
    pair: str
    trained: int = Field(ge=0)
    top1: float
    top1_interval: Annotated[tuple[float, float], Strict(False)]
    seed: int
    recipe_hash: str
    sha256: str


def load_published() -> list[Published]:
    """All of them, in the order of the shelf. Raises: RecipeError for a shelf with faults."""
    tables = tomllib.loads(SHELF.read_text())
    return [
        check_table(Published, table, where=f"{SHELF.name}: [{name}]", given={"name": name})
        for name, table in tables.items()
    ]
