"""The trained adapters that ship, as shipped.toml lists them."""

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import Field, Strict

from idat_zoo.registry.shelves import check_table
from idat_zoo.values import Frozen

SHELF = Path(__file__).with_name("shipped.toml")


class Shipped(Frozen):
    """A checkpoint that ships as `builtin:NAME`, with the result of its run.

    `top1` is on test after the last epoch, a fraction. `trained` counts the parameters of the
    adapter without the head. `sha256` is the digest of its adapter_model.safetensors.
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


def load_shipped() -> list[Shipped]:
    """All trained adapters that ship, in the order of the file. Raises: RecipeError for faults."""
    tables = tomllib.loads(SHELF.read_text())
    return [
        check_table(Shipped, table, where=f"{SHELF.name}: [{name}]", given={"name": name})
        for name, table in tables.items()
    ]
