"""Recipe files, recipes/<pair>.toml: the recipe fields that a pair's adapters and tasks set.

A file states only differences from Recipe's own defaults, in tables that are laid over each other
in this order: [defaults], [adapter.NAME], [task.ID], [task.ID.GROUP], and [override.LABEL], which
lists its `adapters` and `tasks`. GROUP is a name that the file's own table [families] gives to a
list of adapter families. Adapter options are a table `options` in [adapter], [task.ID.GROUP] and
[override]. `extends = "PAIR"` takes over the tables of another file, which may not extend a third.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, Strict, create_model

from idat_zoo.recipe import Recipe
from idat_zoo.recipe_toml import parse_toml, read_text
from idat_zoo.registry.shelves import Family, Known, check_table, collecting, strings, unknown
from idat_zoo.specs import DEFAULT_TERM, FLAT_OPTIONS, OF_THE_TEACHER, TermSpec
from idat_zoo.values import Frozen, Scalar

SETTINGS = [
    *(
        name
        for name in Recipe.model_fields
        if name not in {"pair", "task", "adapter", "teacher_adapter", *OF_THE_TEACHER}
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
    "task group": AdapterSettings,
    "override": Override,
}
"""What sets recipe fields in a recipe file, in the order in which it is laid over each other."""

TABLES = ("defaults", "adapter", "task", "override", "families")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One table of a recipe file: the fields it sets, and the adapters and tasks it applies to.

    `adapters` and `tasks` of None mean all.
    """

    file: Path
    table: str
    level: str
    adapters: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Scalar] = field(default_factory=dict)

    def fits(self, *, adapter: str, task: str) -> bool:
        """Whether the rule applies to this adapter on this task."""
        return (self.adapters is None or adapter in self.adapters) and (
            self.tasks is None or task in self.tasks
        )


@dataclass(frozen=True)
class RecipeFile:
    """A recipe file that was read: its rules, in the order in which they apply."""

    file: Path
    extends: str | None
    rules: tuple[Rule, ...]


def read_recipe_files(
    shelves: Iterable[Path], families: Mapping[str, Family], known: Known, faults: list[str]
) -> dict[str, RecipeFile]:
    """Every recipe file by its pair; the rules of a file that it extends come before its own.

    Faults are appended to `faults`, and where there are any, no file is returned.
    """
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
    groups = _read_groups(content.pop("families", {}), known, faults, file=file)
    faults += [
        f"{file}: {unknown('table', name, [*TABLES, 'extends'])}"
        for name in content
        if name not in TABLES
    ]
    rules = []
    for table in _tables_of(content, groups):
        where = f"{file}: [{table.name}]"
        if table.group is not None and table.group not in groups:
            faults.append(f"{where}: {unknown('group of families', table.group, groups)}")
        elif not isinstance(table.content, dict):
            name = table.name
            faults.append(f"{file}: {name}: expected a table [{name}] (got {table.content!r})")
        else:
            faults += _dangling_names(table, families, known, where=where)
            with collecting(faults):
                rules.append(_read_rule(table, file=file))
    return RecipeFile(file, extends, tuple(rules))


def _read_groups(
    content: Any, known: Known, faults: list[str], *, file: Path
) -> dict[str, tuple[str, ...]]:
    """The adapter families of each group that the table [families] names."""
    if not isinstance(content, dict):
        faults.append(f"{file}: families: expected a table [families] (got {content!r})")
        return {}
    groups = {}
    for name, members in content.items():
        where = f"{file}: [families]: {name}"
        if name in (*SETTINGS, "options"):
            faults.append(f"{where}: a group cannot have the name of a recipe field")
            continue
        if not isinstance(members, list) or not members or strings(members) != members:
            faults.append(f"{where}: expected a list of adapter families (got {members!r})")
        else:
            faults += known.dangling("adapter", members, where=where)
        groups[name] = tuple(strings(members))
    return groups


@dataclass(frozen=True, kw_only=True)
class _Table:
    """A table of a recipe file as it was read, with its full name.

    `adapters` and `tasks` are those that the name itself states, `group` the group of families.
    """

    name: str
    level: str
    content: Any  # whatever TOML can hold
    group: str | None = None
    adapters: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None


def _tables_of(
    content: Mapping[str, Any], groups: Mapping[str, tuple[str, ...]]
) -> Iterator[_Table]:
    """Every table that sets recipe fields, in the order of the file."""
    for level, tables in content.items():
        if level not in TABLES:
            continue
        if level == "defaults" or not isinstance(tables, dict):
            yield _Table(name=level, level=level, content=tables)
            continue
        for label, table in tables.items():
            name = f"{level}.{label}"
            if level == "adapter":
                yield _Table(name=name, level=level, content=table, adapters=(label,))
            elif level == "task" and isinstance(table, dict):
                yield from _tables_of_task(label, table, groups)
            else:
                yield _Table(name=name, level=level, content=table)


def _tables_of_task(
    task: str, table: Mapping[str, Any], groups: Mapping[str, tuple[str, ...]]
) -> Iterator[_Table]:
    """[task.ID], if it sets anything for all adapters, and each [task.ID.GROUP] below it."""
    named = [
        key
        for key, value in table.items()
        if key in groups or (isinstance(value, dict) and key not in (*SETTINGS, "options"))
    ]
    own = {key: value for key, value in table.items() if key not in named}
    if own or not named:
        yield _Table(name=f"task.{task}", level="task", content=own, tasks=(task,))
    for group in named:
        yield _Table(
            name=f"task.{task}.{group}",
            level="task group",
            content=table[group],
            group=group,
            adapters=groups.get(group),
            tasks=(task,),
        )


def _dangling_names(
    table: _Table, families: Mapping[str, Family], known: Known, *, where: str
) -> list[str]:
    """Faults of a table that names adapters, tasks or adapter options that do not exist."""
    adapters = list(table.adapters or strings(table.content.get("adapters")))
    tasks = list(table.tasks or strings(table.content.get("tasks")))
    faults = []
    if table.group is None:  # the families of a group were checked with [families]
        faults += known.dangling("adapter", adapters, where=where)
    faults += known.dangling("task", tasks, where=where)
    options = table.content.get("options", {})
    for adapter in adapters:
        if adapter in families and isinstance(options, dict):
            with collecting(faults):
                families[adapter].specify(options, where=where)
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
    """The file with the rules of the one it extends: by level, and the extended file's first."""
    base = recipes[recipe.extends].rules if recipe.extends else ()
    order = list(LEVELS)
    rules = sorted((*base, *recipe.rules), key=lambda rule: order.index(rule.level))
    return RecipeFile(recipe.file, recipe.extends, tuple(rules))


def _read_rule(table: _Table, *, file: Path) -> Rule:
    """The rule that a table of a recipe file states.

    Raises: RecipeError with every fault of the table.
    """
    checked = check_table(LEVELS[table.level], table.content, where=f"{file}: [{table.name}]")
    settings = checked.model_dump(exclude_unset=True)
    return Rule(
        file=file,
        table=table.name,
        level=table.level,
        adapters=settings.pop("adapters", table.adapters),
        tasks=settings.pop("tasks", table.tasks),
        options=settings.pop("options", {}),
        settings=settings,
    )
