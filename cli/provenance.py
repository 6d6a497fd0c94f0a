"""The comment lines above a recipe that is written out: its id, its tables and their sources."""

from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from idat_zoo.recipe import Recipe
    from idat_zoo.registry import Registry


def provenance(recipe: "Recipe", registry: "Registry") -> str:
    """Comment lines: the recipe's id, its tables, and the sources that those files name."""
    from idat_zoo.recipe_toml import read_text
    from idat_zoo.registry import applying_rules, recipe_id

    rules = applying_rules(
        registry, pair=recipe.pair.name, adapter=recipe.adapter.name, task=recipe.task.id
    )
    lines = [f"# {recipe_id(recipe)}, written out by idat-zoo {metadata.version('idat-zoo')}"]
    for file in dict.fromkeys(rule.file for rule in rules):
        tables = ", ".join(f"[{rule.table}]" for rule in rules if rule.file == file)
        lines.append(f"# {tables} of {file.name}")
        source = read_text(file).splitlines()[0]
        lines += [source] if source.startswith("#") else []
    return "\n".join(lines) + "\n\n"
