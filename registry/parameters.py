"""Parameter counts: how many numbers each adapter family trains on each pair."""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from idat_zoo.registry.pair_forms import SWAPPED, TWINS, base_name
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


def parameters_on(pair: str) -> dict[str, ParameterCount]:
    """The counts by family on one pair, which may be the swapped form or the twins of a pair."""
    base = base_name(pair)
    own = {name: pairs[base] for name, pairs in load_parameters().items() if base in pairs}
    return {name: _in_form(count, pair.removeprefix(base)) for name, count in own.items()}


def _in_form(count: ParameterCount, suffix: str) -> ParameterCount:
    if suffix == SWAPPED:
        return ParameterCount(student=count.teacher, teacher=count.student)
    if suffix == TWINS:
        return ParameterCount(student=count.student, teacher=count.student)
    return count
