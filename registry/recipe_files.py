"""recipes/<pair>.toml: which recipe fields a pair's adapters and tasks set, as rules.

Only differences from Recipe's own defaults are written, in four levels of tables: [defaults],
[adapter.NAME], [task.ID] and [override.LABEL] with lists of `adapters` and `tasks`. Adapter options
are a table `options` in [adapter] and [override]. `extends = "PAIR"` takes over another file's
tables; it may not extend a third.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, Strict, create_model

from idat_zoo.recipe import DEFAULT_TERM, FLAT_OPTIONS, Frozen, Recipe, Scalar, TermSpec
from idat_zoo.recipe_toml import parse_toml, read_text
from idat_zoo.registry.shelves import Family, Known, check_table, collecting, strings, unknown

SETTINGS = [
    *(
        name
        for name in Recipe.model_fields
        if name not in {"pair", "task", "adapter", "teacher_adapter"}
    ),
    *FLAT_OPTIONS,
]
"""The names of a recipe's settings that a recipe file or a command line may give.

`temperature` and `temperature_squared` are options of the distillation term.
"""

Names = Annotated[tuple[str, ...], Strict(False), Field(min_length=1)]

_SETTING_FIELDS: Any = {
    name: (Recipe.model_fields[name].annotation, Recipe.model_fields[name])
    for name in SETTINGS
    if name in Recipe.model_fields
}
_SETTING_FIELDS |= {"distillation": (str | TermSpec, DEFAULT_TERM)}
_SETTING_FIELDS |= dict.fromkeys(FLAT_OPTIONS, (Scalar, None))
Settings = create_model("Settings", __base__=Frozen, **_SETTING_FIELDS)
AdapterSettings = create_model(
    "AdapterSettings", __base__=Settings, options=(dict[str, Scalar], {})
)
Override = create_model(
    "Override", __base__=AdapterSettings, adapters=(Names, ...), tasks=(Names, ...)
)

LEVELS: dict[str, type[Frozen]] = {
    "defaults": Settings,
    "adapter": AdapterSettings,
    "task": Settings,
    "override": Override,
}
"""The tables of a recipe file, in the order in which they are laid over each other."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One table of a recipe file: what it sets, and for which adapters and tasks (None: all)."""

    file: Path
    table: str
    level: str
    adapters: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Scalar] = field(default_factory=dict)

    def fits(self, *, adapter: str, task: str) -> bool:
        """Whether it speaks about this adapter on this task."""
        return (self.adapters is None or adapter in self.adapters) and (
            self.tasks is None or task in self.tasks
        )


@dataclass(frozen=True)
class RecipeFile:
    """recipes/<pair>.toml: its rules, in the order in which they apply."""

    file: Path
    extends: str | None
    rules: tuple[Rule, ...]


def read_recipe_files(
    shelves: Iterable[Path], families: Mapping[str, Family], known: Known, faults: list[str]
) -> dict[str, RecipeFile]:
    """Every recipe file by its pair, with the rules of the file it extends laid under its own."""
    files = {file.stem: file for root in shelves for file in sorted(root.glob("recipes/*.toml"))}
    recipes = {}
    for pair, file in files.items():
        faults += known.dangling("pair", pair, where=str(file))
        with collecting(faults):
            recipes[pair] = _read_recipe_file(file, families, known, faults)
    for recipe in recipes.values():
        faults += _dangling_extends(recipe, recipes, files)
    return {} if faults else {pair: _extended(recipe, recipes) for pair, recipe in recipes.items()}


def _read_recipe_file(
    file: Path, families: Mapping[str, Family], known: Known, faults: list[str]
) -> RecipeFile:
    content = parse_toml(read_text(file), where=str(file))
    extends = content.pop("extends", None)
    if not isinstance(extends, str | None):
        faults.append(f"{file}: extends: expected the name of a pair (got {extends!r})")
        extends = None
    rules = []
    for level, label, table in _tables_of(content):
        name = f"{level}.{label}" if label else level
        if level not in LEVELS:
            faults.append(f"{file}: {unknown('table', level, [*LEVELS, 'extends'])}")
        elif not isinstance(table, dict):
            faults.append(f"{file}: {name}: expected a table [{name}] (got {table!r})")
        else:
            faults += _dangling_names(name, table, families, known, where=f"{file}: [{name}]")
            with collecting(faults):
                rules.append(_read_rule(name, table, file=file))
    return RecipeFile(file, extends, tuple(rules))


def _tables_of(content: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(level, label, table) for every table; [defaults] has no label."""
    for level, tables in content.items():
        if level == "defaults" or level not in LEVELS or not isinstance(tables, dict):
            yield level, "", tables
        else:
            yield from ((level, label, table) for label, table in tables.items())


def _dangling_names(
    name: str,
    table: Mapping[str, Any],
    families: Mapping[str, Family],
    known: Known,
    *,
    where: str,
) -> list[str]:
    """Faults of a table that speaks of adapters, tasks or adapter options that are not there."""
    level, _, label = name.partition(".")
    adapters = label if level == "adapter" else table.get("adapters")
    tasks = label if level == "task" else table.get("tasks")
    faults = known.dangling("adapter", adapters, where=where)
    faults += known.dangling("task", tasks, where=where)
    options = table.get("options", {})
    for adapter in strings(adapters):
        if adapter in families and isinstance(options, dict):
            with collecting(faults):
                families[adapter].choose(options, where=where)
    return faults


def _dangling_extends(
    recipe: RecipeFile, recipes: Mapping[str, RecipeFile], files: Mapping[str, Path]
) -> Iterator[str]:
    if recipe.extends is None:
        return
    where = f"{recipe.file}: extends"
    if recipe.extends not in files:
        yield f"{where}: {unknown('recipe file', recipe.extends, files)}"
    elif recipe.extends == recipe.file.stem:
        yield f"{where}: a file cannot extend itself"
    elif recipe.extends in recipes and recipes[recipe.extends].extends is not None:
        yield f"{where}: '{recipe.extends}' extends another file itself; only one level is possible"


def _extended(recipe: RecipeFile, recipes: Mapping[str, RecipeFile]) -> RecipeFile:
    """With the rules of the file it extends: level by level, the extended file's first."""
    base = recipes[recipe.extends].rules if recipe.extends else ()
    order = list(LEVELS)
    rules = sorted((*base, *recipe.rules), key=lambda rule: order.index(rule.level))
    return RecipeFile(recipe.file, recipe.extends, tuple(rules))


def _read_rule(name: str, table: Mapping[str, Any], *, file: Path) -> Rule:
    """The rule that the table [name] of a recipe file states.

    Raises: RecipeError with every fault of the table.
    """
    level, _, label = name.partition(".")
    checked = check_table(LEVELS[level], table, where=f"{file}: [{name}]")
    settings = checked.model_dump(exclude_unset=True)
    selected = {"adapter": {"adapters": (label,)}, "task": {"tasks": (label,)}}.get(level, {})
    stated = {key: settings.pop(key) for key in ("adapters", "tasks") if key in settings}
    return Rule(
        file=file,
        table=name,
        level=level,
        options=settings.pop("options", {}),
        settings=settings,
        **(selected | stated),
    )
