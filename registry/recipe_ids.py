"""The ids of recipes, pair/adapter/task, and the recipes that they name."""

import itertools

from idat_zoo.errors import UnknownNameError, near_names
from idat_zoo.recipe import Recipe
from idat_zoo.registry.registry import Registry
from idat_zoo.registry.resolve import applying_rules, compose_recipe
from idat_zoo.registry.task_words import FOLDER


def recipe_id(recipe: Recipe) -> str:
    """The id of a recipe: pair/adapter/task."""
    return f"{recipe.pair.name}/{recipe.adapter.word}/{recipe.task.id}"


def unlike_recipe_ids(registry: Registry) -> list[str]:
    """A recipe id for each set of tables that applies together, enough to check all recipes.

    Recipes of one pair and adapter that the same tables make differ in the task alone, and so have
    the same faults.
    """
    first: dict[tuple[object, ...], str] = {}
    for pair in registry.pairs:
        for adapter in registry.adapters:
            for task in registry.tasks:
                rules = applying_rules(registry, pair=pair, adapter=adapter, task=task)
                first.setdefault((pair, adapter, *map(id, rules)), f"{pair}/{adapter}/{task}")
    return list(first.values())


def find_recipe(registry: Registry, name: str) -> Recipe:
    """The recipe with an id; its task may be an alias.

    Raises: UnknownNameError; RecipeError if its tables do not fit together; UsageError for the task
    `folder`, whose recipe depends on the images.
    """
    pair, _, rest = name.partition("/")
    adapter, _, task = rest.partition("/")
    if task == FOLDER:
        registry.find_task(task)  # it raises the UsageError
    if not (registry.has_pair(pair) and adapter in registry.adapters and registry.has_task(task)):
        error = UnknownNameError("recipe", name, _near_ids(registry, pair, adapter, task))
        error.hint = "`idat list recipes` lists them."
        raise error
    return compose_recipe(registry, task, adapter, pair=pair)


def _near_ids(registry: Registry, *parts: str) -> list[str]:
    """Suggested ids: known parts stay, and unknown parts are replaced by similar names."""
    known = (registry.pairs, registry.adapters, registry.tasks)
    near = [
        [part]
        if part in names or (names is registry.pairs and registry.has_pair(part))
        else near_names(part, names)
        for part, names in zip(parts, known, strict=True)
    ]
    return ["/".join(id) for id in itertools.product(*near)]
