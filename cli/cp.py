"""`idat cp`: a recipe from the shelves copied to a file that a user may edit."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from idat_zoo.cli.options import JsonOption, PluginOption, ShelfOption
from idat_zoo.cli.provenance import provenance
from idat_zoo.cli.screen import note, print_json
from idat_zoo.errors import UsageError


def copy_recipe(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="pair/adapter/task")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")],
    shelf: ShelfOption = None,
    plugin: PluginOption = None,
    force: Annotated[bool, typer.Option("--force", help="Write over FILE.")] = False,
    json: JsonOption = False,
) -> None:
    """Copy a recipe to a file of your own, for `train --recipe FILE`."""
    from idat_zoo.files import write_whole
    from idat_zoo.recipe_toml import dump_recipe
    from idat_zoo.registry import find_recipe, load_registry

    registry = load_registry(shelf)
    found = find_recipe(registry, recipe)
    if file.exists() and not force:
        raise UsageError(f"'{file}' exists already", hint="--force writes over it.")
    text = provenance(found, registry) + dump_recipe(found)
    write_whole(file, text.encode(), other="another FILE")
    if json:
        print_json({"file": str(file), "recipe": found.model_dump(mode="json", exclude_none=True)})
    else:
        typer.echo(file)
    word = shlex.quote(str(file))
    note(f"Edit it, then: idat validate {word} && idat train --recipe {word}")
