"""The candidates of a recipe: every combination of the values that `candidates` lists."""

import itertools
import math
from collections.abc import Mapping

from idat_zoo.errors import RecipeError
from idat_zoo.recipe import Recipe, check_recipe
from idat_zoo.values import Scalar

Values = dict[str, Scalar]
"""The values of one candidate by field."""


def count_candidates(recipe: Recipe) -> int:
    """The number of combinations."""
    return math.prod(len(values) for values in recipe.candidates.values())


def combinations(recipe: Recipe) -> list[Values]:
    """Every combination of the candidates' values, in the recipe's order."""
    fields = recipe.candidates
    return [dict(zip(fields, own, strict=True)) for own in itertools.product(*fields.values())]


def with_values(recipe: Recipe, values: Mapping[str, Scalar]) -> Recipe:
    """The recipe with the values of one candidate, and without candidates.

    `adapter.X` sets an option of the student's adapter, `teacher_adapter.X` of the teacher's,
    `distillation.X` of the term, and any other name a field of the recipe.

    Raises: RecipeError for a field that does not exist, or an invalid value.
    """
    fields = recipe.model_dump() | {"selection": "none", "candidates": {}}
    for name, value in values.items():
        role, _, option = name.rpartition(".")
        if not role:
            fields[name] = value
        elif isinstance(fields.get(role), dict) and "options" in fields[role]:
            fields[role]["options"][option] = value
        else:
            raise RecipeError([f"candidates: {name}: unknown key"])
    return check_recipe(fields, where="candidates")


def values_in_words(values: Mapping[str, Scalar]) -> str:
    """`lr = 0.01, weight_decay = 0`."""
    return ", ".join(f"{name} = {value}" for name, value in values.items())
