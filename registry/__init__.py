"""The registry: backbones, pairs, tasks, adapters and recipes, described in TOML files (shelves).

Recipes are composed from them by name. Importing this package does not load torch.
"""

from idat_zoo.registry.averages import averaged_tasks
from idat_zoo.registry.comma_lists import (
    resolve_adapters,
    resolve_held,
    resolve_tasks,
    task_groups,
    task_suites,
)
from idat_zoo.registry.load import load_registry
from idat_zoo.registry.pair_forms import FORMS, swapped, twins
from idat_zoo.registry.pretrained import differences
from idat_zoo.registry.recipe_files import Rule
from idat_zoo.registry.recipe_ids import find_recipe, recipe_id, unlike_recipe_ids
from idat_zoo.registry.registry import Registry
from idat_zoo.registry.resolve import (
    applying_rules,
    compose_recipe,
    get_recipe,
    recipe_from_file,
    with_folder,
)
from idat_zoo.registry.shelves import Family
from idat_zoo.registry.task_words import ALL, ARRAYS, FOLDER, GROUPS, SUITE, SUITES
from idat_zoo.registry.words import parse_words, spread_words

__all__ = [
    "ALL",
    "ARRAYS",
    "FOLDER",
    "FORMS",
    "GROUPS",
    "SUITE",
    "SUITES",
    "Family",
    "Registry",
    "Rule",
    "applying_rules",
    "averaged_tasks",
    "compose_recipe",
    "differences",
    "find_recipe",
    "get_recipe",
    "load_registry",
    "parse_words",
    "recipe_from_file",
    "recipe_id",
    "resolve_adapters",
    "resolve_held",
    "resolve_tasks",
    "spread_words",
    "swapped",
    "task_groups",
    "task_suites",
    "twins",
    "unlike_recipe_ids",
    "with_folder",
]
