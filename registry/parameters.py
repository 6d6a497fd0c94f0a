"""How many numbers each adapter family trains on each pair; read when somebody asks for them."""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from idat_zoo.recipe import Frozen
from idat_zoo.registry.shelves import check_table

SHELF = Path(__file__).with_name("parameters.toml")


class ParameterCount(Frozen):
    """Numbers in the adapters of one pair, heads left out."""

    student: int
    teacher: int


@cache
def load_parameters() -> Mapping[str, Mapping[str, ParameterCount]]:
    """By family and by pair, where the family can stand on both networks.

    Counted with default options. Raises: RecipeError for a shelf with faults.
    """
    return {
        family: {
            pair: check_table(ParameterCount, table, where=f"{SHELF.name}: [{family}]: {pair}")
            for pair, table in pairs.items()
        }
        for family, pairs in tomllib.loads(SHELF.read_text()).items()
    }
