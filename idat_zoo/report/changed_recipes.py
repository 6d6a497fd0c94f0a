"""Recipes in results that are not the ones that their runs had, told by the hash of the recipe."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from idat_zoo.errors import ZooError
from idat_zoo.recipe import Recipe
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.report.fields import ReadOptions
from idat_zoo.results import EDITED, Result
from idat_zoo.specs import BRIDGE, AdapterSpec
from idat_zoo.values import OptionValue


def check_recipes(found: Sequence[tuple[Path, Result]], read_options: ReadOptions) -> None:
    """Check the recipes of results that say the same hash.

    Recipes whose hash needs the code of plugins or of PEFT are not checked, nor are those of later
    evaluations, which have the hash that their checkpoint says.

    Raises: ZooError for the first result whose recipe has another hash than it says.
    """

    def changed_options(spec: AdapterSpec) -> Mapping[str, OptionValue]:
        options = read_options(spec)
        usual = read_options(spec.model_copy(update={"options": {}}))
        return {name: value for name, value in options.items() if value != usual[name]}

    checked: list[Recipe] = []
    for path, result in found:
        recipe = result.recipe
        if result.kind != "run" or recipe in checked or not _has_own_code(recipe):
            continue
        own = recipe_hash(recipe, changed_options)
        if own != result.recipe_hash:
            raise ZooError(
                f"'{path}' contradicts itself: recipe_hash is {result.recipe_hash[:8]}, and its "
                f"recipe has {own[:8]}.",
                hint=EDITED,
            )
        checked.append(recipe)


def _has_own_code(recipe: Recipe) -> bool:
    """Whether all adapters and the distillation term are idat-zoo's own."""
    specs = [recipe.adapter, *(one.adapter for one in recipe.further_teachers or ())]
    if recipe.teacher_adapter is not None:
        specs.append(recipe.teacher_adapter)
    own = all(spec.plugin is None and spec.name != BRIDGE for spec in specs)
    return own and recipe.distillation.plugin is None
