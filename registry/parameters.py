"""Parameter counts: how many numbers each adapter family trains on each pair."""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from idat_zoo.registry.shelves import check_table
from idat_zoo.values import Frozen

SHELF = Path(__file__).with_name("parameters.toml")


class ParameterCount(Frozen):
    """The number of trained parameters in the two adapters of a pair, heads excluded."""

    student: int
    teacher: int


@cache
def load_parameters() -> Mapping[str, Mapping[str, ParameterCount]]:
    """The counts by family and by pair, for pairs whose networks both carry the family.

    They hold for default options. Raises: RecipeError for a table with faults.
    """
    return {
        family: {
            pair: check_table(ParameterCount, table, where=f"{SHELF.name}: [{family}]: {pair}")
            for pair, table in pairs.items()
        }
        for family, pairs in tomllib.loads(SHELF.read_text()).items()
    }
