"""`idat validate`: recipe and study files and shelves checked, with every fault listed."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idat_zoo.cli.options import JsonOption, PluginOption, ShelfOption
from idat_zoo.cli.screen import end, note, print_json
from idat_zoo.cli.study_files import is_study_file, plan_study
from idat_zoo.errors import RecipeError

if TYPE_CHECKING:
    from idat_zoo.recipe import Backbone


def validate(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE|DIR]…", help="Recipe and study files, shelves as folders."),
    ] = None,
    shelf: ShelfOption = None,
    plugin: PluginOption = None,
    json: JsonOption = False,
) -> None:
    """Check recipes, studies and shelves; every fault is listed.

    Without FILE or DIR: the shelves in use. Backbones that did not ship are held against the timm
    that is installed; nothing is fetched.
    """
    faults: list[str] = []
    notes: list[str] = []
    for path in paths or (None,):
        found = _faults_of(path, shelf, notes)
        faults += found
        if not (found or json):
            typer.echo(f"ok  {path or shelf or 'built-in shelf'}")
    if json:
        print_json({"valid": not faults, "faults": faults, "notes": notes})
    else:
        for text in dict.fromkeys(notes):
            note(text)
    if faults:
        end(RecipeError(faults))


def _faults_of(path: Path | None, shelf: Path | None, notes: list[str]) -> list[str]:
    """The faults of a recipe file or a shelf; with None, of the shelves in use."""
    from idat_zoo.registry import find_recipe, load_registry, recipe_from_file, unlike_recipe_ids

    faults: list[str] = []
    try:
        if path is not None and not path.is_dir():
            if is_study_file(path):
                plan_study(path, shelf)
                return []
            recipe = recipe_from_file(path, registry=load_registry(shelf))
            return _backbone_faults(recipe.backbones(), str(path), notes)
        registry = load_registry(path or shelf)
    except RecipeError as error:
        return error.faults
    for name in unlike_recipe_ids(registry):
        try:
            find_recipe(registry, name)
        except RecipeError as error:
            faults += error.faults
    faults += _backbone_faults(registry.backbones.values(), str(path or shelf), notes)
    return list(dict.fromkeys(faults))


def _backbone_faults(backbones: Iterable["Backbone"], where: str, notes: list[str]) -> list[str]:
    """Faults that timm finds in backbones that are not on the built-in shelf.

    A value that differs from what the weights were trained with is no fault: it goes to `notes`.
    """
    from idat_zoo.registry import differences, load_registry

    shipped = load_registry().backbones.values()
    own = [backbone for backbone in backbones if backbone not in shipped]
    if not own:
        return []  # timm takes seconds to load
    from idat_zoo.backbones.frozen import faults_of

    notes += [f"{where}: {text}" for backbone in own for text in differences(backbone)]
    return [f"{where}: {fault}" for backbone in own for fault in faults_of(backbone)]
