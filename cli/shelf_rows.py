"""The rows of `idat list`, shelf by shelf: one plain mapping per entry, as --json prints it."""

import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idat_zoo.recipe import Recipe
    from idat_zoo.registry import Registry

Row = dict[str, Any]

RECIPE_FIELDS = ("lr", "weight_decay", "drop_path", "epochs", "distillation")
"""The fields of a recipe that its row shows."""


def recipe_rows(
    registry: "Registry",
    glob: str | None,
    *,
    task: str | None,
    adapter: str | None,
    pair: str | None,
) -> list[Row]:
    """One row per recipe, each task with its default pair.

    With `pair`, that pair takes the default's place; with `glob`, every pair is searched.
    """
    from idat_zoo.registry import ALL, find_recipe, resolve_adapters, resolve_tasks

    tasks = resolve_tasks(task, registry) if task else list(registry.tasks.values())
    adapters = resolve_adapters(adapter or ALL, registry)
    own_pairs = registry.default_pairs
    rows = []
    for each in tasks:
        if pair:
            pairs = [registry.find_pair(pair).name]
        else:
            pairs = list(registry.pairs) if glob else [own_pairs[each.id]]
        names = [f"{p}/{family.word}/{each.id}" for p in pairs for family in adapters]
        rows += [
            _recipe_row(find_recipe(registry, name), name, registry)
            for name in names
            if matches(name, glob)
        ]
    return rows


def _recipe_row(recipe: "Recipe", name: str, registry: "Registry") -> Row:
    return {
        "name": name,
        "own": registry.is_own("recipe", recipe.pair.name),
        **{field: getattr(recipe, field) for field in RECIPE_FIELDS},
        "distillation": recipe.distillation.name,
        "options": recipe.adapter.options,
    }


def adapter_rows(registry: "Registry", pair: str | None) -> list[Row]:
    """The adapter families; with a pair, those that fit both of its networks, and their sizes.

    Families of installed distributions that nothing has imported yet are listed by name alone,
    because describing them would run their code.
    """
    from idat_zoo.registry.parameters import load_parameters, parameters_on

    counts = load_parameters()
    own = None if pair is None else parameters_on(registry.find_pair(pair).name)
    unread = registry.adapters.unread
    described = [registry.adapters[name] for name in registry.adapters if name not in unread]
    rows = [
        {
            **family.model_dump(exclude={"options"}),
            "parameters": {
                pair: count.model_dump() for pair, count in counts.get(family.name, {}).items()
            },
            **({} if own is None else own[family.name].model_dump()),
            "own": family.plugin is not None,
            "year": family.year or None,
            "options": {name: option.default for name, option in family.options.items()},
        }
        for family in described
        if own is None or family.name in own
    ]
    nothing = dict.fromkeys(("merge", "stack", "paper", "year"))
    for name, plugin in unread.items() if own is None else ():
        source = plugin.model_dump(exclude_none=True)
        rows.append({"name": name, "title": str(plugin), **nothing, "plugin": source, "own": True})
    return rows


def term_rows() -> list[Row]:
    """The distillation terms, with the outputs they read and their options' defaults."""
    from idat_zoo.registry.terms import describe_terms

    return [
        {**term.model_dump(mode="json", exclude_none=True), "own": term.plugin is not None}
        for term in describe_terms().values()
    ]


def control_rows() -> list[Row]:
    """The controls, and the number of a run's result that counts in each."""
    from idat_zoo.registry.controls import CONTROLS

    return [
        {"name": one.name, "title": one.title, "metric": one.metric, "own": False}
        for one in CONTROLS.values()
    ]


def study_rows(shelf: Path | None) -> list[Row]:
    """The studies that ship, and those in the folder `studies` of a shelf."""
    from idat_zoo.registry.studies import study_files, study_titles

    shipped = study_files()
    own = {name for name, file in study_files(shelf).items() if shipped.get(name) != file}
    return [
        {"name": name, "title": title, "own": name in own}
        for name, title in study_titles(shelf).items()
    ]


def shipped_rows() -> list[Row]:
    """The trained adapters that ship with the package."""
    from idat_zoo.registry.shipped import load_shipped

    return [
        {**own.model_dump(mode="json"), "name": f"builtin:{own.name}", "own": False}
        for own in load_shipped()
    ]


def pair_rows(registry: "Registry") -> list[Row]:
    """The teacher–student pairs, and whether the weights of both are on this machine."""
    from idat_zoo.registry.local import pair_weights_here

    return [
        {
            "name": pair.name,
            "own": registry.is_own("pair", pair.name),
            "teacher": pair.teacher.name if pair.teacher else "none",
            "student": pair.student.name,
            "weights_here": pair_weights_here(pair),
        }
        for pair in registry.pairs.values()
    ]


def backbone_rows(registry: "Registry") -> list[Row]:
    """The backbones, and whether their weights are on this machine."""
    from idat_zoo.registry.local import weights_here

    return [
        {
            **backbone.model_dump(),
            "own": registry.is_own("backbone", backbone.name),
            "weights_here": weights_here(backbone),
        }
        for backbone in registry.backbones.values()
    ]


def task_rows(registry: "Registry", data_dir: Path | None) -> list[Row]:
    """The tasks, with the pair that trains them by default, and whether their images are here."""
    from idat_zoo.registry.local import images_here

    return [
        {
            "name": task.id,
            **task.model_dump(exclude={"id"}),
            "own": registry.is_own("task", task.id),
            "pair": registry.default_pairs[task.id],
            "aliases": registry.aliases_of(task.id),
            "images_here": images_here(task, data_dir),
        }
        for task in registry.tasks.values()
    ]


def matches(name: str, glob: str | None) -> bool:
    """Whether a name fits a shell pattern; every name fits None."""
    return glob is None or fnmatch.fnmatchcase(name, glob)
