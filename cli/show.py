"""`idat show`: one entry (recipe, adapter, term, pair, task, backbone, study) written out."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idat_zoo.cli.options import JsonOption, PluginOption, ShelfOption
from idat_zoo.cli.provenance import provenance
from idat_zoo.cli.screen import print_json, print_table
from idat_zoo.cli.study_files import describe_study, is_study_file, plan_study
from idat_zoo.errors import UnknownNameError

if TYPE_CHECKING:
    from idat_zoo.registry import Registry
    from idat_zoo.values import Frozen


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE",
            help="A recipe (pair/adapter/task or a file), adapter, term, pair, task, backbone or "
            "study (a name or a file).",
        ),
    ],
    shelf: ShelfOption = None,
    plugin: PluginOption = None,
    json: JsonOption = False,
) -> None:
    """One recipe, adapter, term, pair, task, backbone or study."""
    import tomli_w

    from idat_zoo.registry import load_registry

    kind, comment, document = _look_up(name, load_registry(shelf), shelf)
    if json:
        print_json({"kind": kind, kind: document})
        return
    numbers = document.pop("parameters", {}) if kind == "adapter" else {}
    typer.echo(comment + tomli_w.dumps(document), nl=False)
    if numbers:
        typer.echo()
        print_table(
            ["numbers trained on", "student", "teacher"],
            [[pair, *(f"{count:,}" for count in own.values())] for pair, own in numbers.items()],
        )


def _look_up(
    name: str, registry: "Registry", shelf: Path | None
) -> tuple[str, str, dict[str, Any]]:
    """The entry with this name: its kind, a comment that names its file, and its fields.

    Raises: UnknownNameError; RecipeError for a recipe file with faults.
    """
    from idat_zoo.registry import FOLDER, find_recipe, recipe_from_file
    from idat_zoo.registry.pair_forms import base_name
    from idat_zoo.registry.parameters import load_parameters
    from idat_zoo.registry.terms import describe_terms

    if name.endswith(".toml"):
        if is_study_file(Path(name)):
            return "study", f"# study {name}\n\n", describe_study(plan_study(name, shelf))
        recipe = recipe_from_file(Path(name), registry=registry)
        return "recipe", f"# {name}\n\n", _dump(recipe)
    if "/" in name:
        recipe = find_recipe(registry, name)
        return "recipe", provenance(recipe, registry), _dump(recipe)
    task = registry.find_task(name).id if registry.has_task(name) or name == FOLDER else name
    shelves: list[tuple[str, str, Mapping[str, Frozen]]] = [
        ("adapter", name, registry.adapters),
        ("term", name, describe_terms()),
        ("pair", name, _with_form(name, registry)),
        ("task", task, registry.tasks),
        ("backbone", name, registry.backbones),
    ]
    for kind, key, things in shelves:
        if key in things:
            document = _dump(things[key])
            if kind == "adapter":
                document["parameters"] = {
                    pair: count.model_dump()
                    for pair, count in load_parameters().get(key, {}).items()
                }
            if kind == "task":
                document = {
                    **{f: value for f, value in document.items() if value or f.startswith("num_")},
                    "pair": registry.default_pairs[key],
                    "aliases": registry.aliases_of(key),
                }
            plugin = getattr(things[key], "plugin", None)
            elsewhere = "idat_zoo/distillation" if kind == "term" else "peft"
            file = registry.files.get((kind, base_name(key) if kind == "pair" else key), elsewhere)
            place = f"plugin {plugin}" if plugin else file
            return kind, f"# {kind} {key}, from {place}\n\n", document
    from idat_zoo.registry.studies import study_files  # loads the planning of studies

    studies = study_files(shelf)
    if name in studies:
        document = describe_study(plan_study(name, shelf))
        return "study", f"# study {name}, from {studies[name]}\n\n", document
    everything = [key for _, _, things in shelves for key in things] + [*studies]
    raise UnknownNameError("name", name, everything)


def _with_form(name: str, registry: "Registry") -> Mapping[str, "Frozen"]:
    """The pairs of the shelves, with the swapped pair or the twins that the name may stand for."""
    return (
        {**registry.pairs, name: registry.find_pair(name)}
        if registry.has_pair(name)
        else registry.pairs
    )


def _dump(model: "Frozen") -> dict[str, Any]:
    return model.model_dump(mode="json", exclude_none=True)
