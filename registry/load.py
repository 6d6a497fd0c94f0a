"""Loading the shelves: TOML files -> Registry, the built-in shelf with a user's own laid over it.

A shelf is a folder with any of backbones.toml, pairs.toml, tasks.toml, sources.toml and
recipes/<pair>.toml. A new name on a user's shelf is added; a name that the built-in shelf has too
replaces its table, or recipe file, as a whole. Adapters are code, so no shelf defines them: they
are built in or come from plugins.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from idat_zoo.errors import RecipeError
from idat_zoo.outside import marked, marked_task
from idat_zoo.recipe import Backbone, Pair, Task
from idat_zoo.registry.families import Families
from idat_zoo.registry.raw_tables import (
    RawTable,
    check_all,
    expand_shots,
    fill_in_timms_values,
    read_tables,
)
from idat_zoo.registry.recipe_files import read_recipe_files
from idat_zoo.registry.registry import BUILTIN, Registry
from idat_zoo.registry.shelves import Family, Known, PairTable, TaskTable, strings, unknown
from idat_zoo.registry.suite_faults import suite_faults
from idat_zoo.registry.task_words import TASK_WORDS
from idat_zoo.sources import DataSource

SHELF_FILES = ("backbones.toml", "pairs.toml", "tasks.toml", "sources.toml")
KINDS = {
    "backbones.toml": "backbone",
    "pairs.toml": "pair",
    "tasks.toml": "task",
    "sources.toml": "source",
    "adapters.toml": "adapter",
}


def load_registry(shelf: Path | None = None) -> Registry:
    """The built-in shelf with a user's own, if one is given, laid over it.

    Raises: RecipeError with every fault of every file.
    """
    faults: list[str] = []
    shelves = [BUILTIN]
    if shelf is not None:
        faults += _foreign_files(shelf)
        shelves.append(shelf)
    broken: set[str] = set()
    raw = {
        name: read_tables([file for root in shelves for file in root.glob(name)], faults, broken)
        for name in SHELF_FILES
    }
    raw["tasks.toml"] = expand_shots(raw["tasks.toml"])
    raw["backbones.toml"] = {
        name: fill_in_timms_values(table, faults) for name, table in raw["backbones.toml"].items()
    }
    raw["adapters.toml"] = read_tables([BUILTIN / "adapters.toml"], faults, broken)

    backbones = {
        name: marked(spec)
        for name, spec in check_all(Backbone, raw["backbones.toml"], faults).items()
    }
    pair_tables = check_all(PairTable, raw["pairs.toml"], faults)
    sources = check_all(DataSource, raw["sources.toml"], faults)
    task_tables = check_all(TaskTable, raw["tasks.toml"], faults, key="id")
    families = check_all(Family, raw["adapters.toml"], faults)

    adapters = Families(families)
    known = Known(
        {KINDS[file]: tables for file, tables in raw.items() if file not in broken}
        | {"adapter": list(adapters)}
    )
    faults += _dangling_pairs(raw["pairs.toml"], known)
    faults += _dangling_tasks(raw["tasks.toml"], known)
    for entry in raw["sources.toml"].values():
        faults += suite_faults(entry.table, where=entry.where)
    recipes = read_recipe_files(shelves, adapters, known, faults)
    if faults:
        raise RecipeError(faults)

    return Registry(
        backbones=backbones,
        pairs={
            table.name: Pair(
                name=table.name,
                teacher=backbones[table.teacher],
                student=backbones[table.student],
            )
            for table in pair_tables.values()
        },
        tasks={
            name: marked_task(Task.model_validate(table.model_dump(include=set(Task.model_fields))))
            for name, table in task_tables.items()
        },
        sources=sources,
        adapters=adapters,
        rules={pair: recipe.rules for pair, recipe in recipes.items()},
        aliases={
            alias: name
            for name, table in task_tables.items()
            for alias in table.aliases
            if alias not in task_tables
        },
        default_pairs={name: table.pair for name, table in task_tables.items()},
        files={
            (KINDS[file], name): entry.file
            for file, tables in raw.items()
            for name, entry in tables.items()
        }
        | {("recipe", pair): recipe.file for pair, recipe in recipes.items()},
    )


def _foreign_files(shelf: Path) -> list[str]:
    """Faults of a user's shelf: not a folder, empty, or with TOML files that nothing reads."""
    try:
        if not shelf.is_dir():
            return [f"{shelf}: the shelf is not a folder"]
    except PermissionError:
        return [f"{shelf}: the shelf cannot be read: Permission denied"]
    names = sorted(path.name for path in shelf.glob("*.toml"))
    below = ("recipes/*.toml", "studies/*.toml")
    if not names and not any(any(shelf.glob(pattern)) for pattern in below):
        return [
            f"{shelf}: no shelf: none of {', '.join(SHELF_FILES)}, {' or '.join(below)} is there"
        ]
    return [
        f"{shelf / name}: {unknown('shelf file', name, SHELF_FILES)}"
        for name in names
        if name not in SHELF_FILES
    ]


def _dangling_pairs(pairs: Mapping[str, RawTable], known: Known) -> Iterator[str]:
    for raw in pairs.values():
        for role in ("teacher", "student"):
            yield from known.dangling("backbone", raw.table.get(role), where=f"{raw.where}: {role}")


def _dangling_tasks(tasks: Mapping[str, RawTable], known: Known) -> Iterator[str]:
    """Faults of tasks: an unknown pair, and a name that another task, a group or a suite has."""
    owners = {name: name for name in tasks}
    for name, raw in tasks.items():
        yield from known.dangling("pair", raw.table.get("pair"), where=f"{raw.where}: pair")
        if name in TASK_WORDS:
            yield f"{raw.where}: '{name}' is the name of a group or suite"
        yield from suite_faults(raw.table, where=raw.where)
        for alias in strings(raw.table.get("aliases")):
            owner = owners.setdefault(alias, name)
            overruled = alias == owner and raw.builtin and not tasks[owner].builtin
            if alias in TASK_WORDS:
                yield f"{raw.where}: aliases: '{alias}' is the name of a group or suite"
            elif owner != name and not overruled:
                yield f"{raw.where}: aliases: '{alias}' is already a name of task '{owner}'"
