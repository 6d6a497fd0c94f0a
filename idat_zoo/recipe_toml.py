"""The TOML form of recipes, as in a run's `recipe.toml` and in `idat train --recipe FILE`."""

import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from idat_zoo.errors import RecipeError
from idat_zoo.recipe import Recipe, check_recipe


def dump_recipe(recipe: Recipe) -> str:
    """The TOML text of a recipe, defaults included; fields that are None are left out."""
    return tomli_w.dumps(recipe.model_dump(exclude_none=True))


def parse_recipe(text: str, *, where: str) -> Recipe:
    """The recipe in a TOML text; `where` names the text in messages.

    Raises: RecipeError if the TOML is broken or the recipe has faults.
    """
    return check_recipe(parse_toml(text, where=where), where=where)


def parse_toml(text: str, *, where: str) -> dict[str, Any]:
    """The table in a TOML text. Raises: RecipeError naming `where` and the line of an error."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError([f"{where}: broken TOML: {error}"]) from None


def read_text(path: Path) -> str:
    """The text of a file. Raises: RecipeError if it is missing, unreadable or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise RecipeError([f"{path}: is not UTF-8 text"]) from None
