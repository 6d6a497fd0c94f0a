"""TOML shelves -> Registry: the built-in shelf, and a user's own laid over it.

A shelf is a folder with any of backbones.toml, pairs.toml, tasks.toml, sources.toml and
recipes/<pair>.toml. What a user's shelf names anew is added; what it names again replaces the
built-in table or recipe file as a whole. Adapters are code, so a shelf has none of its own: others
than the built-in ones come from plugins.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from idat_zoo.data import suites
from idat_zoo.data.suites.arrays import OwnArrays
from idat_zoo.data.suites.folder import OwnFolder
from idat_zoo.data.suites.vtab1k import Vtab1k
from idat_zoo.errors import RecipeError, UnknownNameError, UsageError, folded
from idat_zoo.outside import SUITES_GROUP, marked, marked_task, providers
from idat_zoo.recipe import Backbone, Pair, Task
from idat_zoo.recipe_toml import parse_toml, read_text
from idat_zoo.registry.families import Families
from idat_zoo.registry.pretrained import with_timms_values
from idat_zoo.registry.recipe_files import Rule, read_recipe_files
from idat_zoo.registry.shelves import (
    Family,
    Known,
    Model,
    PairTable,
    TaskTable,
    check_table,
    collecting,
    strings,
    unknown,
)
from idat_zoo.registry.suite_faults import suite_faults
from idat_zoo.sources import DataSource

BUILTIN = Path(__file__).parent
SHELF_FILES = ("backbones.toml", "pairs.toml", "tasks.toml", "sources.toml")
KINDS = {
    "backbones.toml": "backbone",
    "pairs.toml": "pair",
    "tasks.toml": "task",
    "sources.toml": "source",
    "adapters.toml": "adapter",
}
GROUPS = Vtab1k.groups
SUITE = Vtab1k.name
ALL = "all"
"""All of VTAB-1K's tasks, or all adapters, in one word."""
FOLDER = OwnFolder.name
"""The name under which one's own folder of images is asked for; no shelf has it."""
ARRAYS = OwnArrays.name
"""The same of images that a Python program holds."""
SUITES = tuple(suite for suite in suites.SUITES if suite not in (FOLDER, ARRAYS))
"""The built-in suites that a shelf has tasks of."""
TASK_WORDS = (*GROUPS, *SUITES, ALL, FOLDER, ARRAYS)
"""What --task takes besides tasks' own names; no task may have such a name."""
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"  # names become parts of ids and folders

Entry = TypeVar("Entry")


@dataclass(frozen=True, kw_only=True)
class Registry:
    """Everything on the shelves by name. `aliases` are other names of tasks.

    `rules` are each pair's, in the order in which they apply. `files` says where a thing of a kind
    ("task", "dtd") is written.
    """

    backbones: Mapping[str, Backbone]
    pairs: Mapping[str, Pair]
    tasks: Mapping[str, Task]
    sources: Mapping[str, DataSource]
    adapters: Families
    rules: Mapping[str, tuple[Rule, ...]]
    aliases: Mapping[str, str]
    default_pairs: Mapping[str, str]
    files: Mapping[tuple[str, str], Path]

    def find_backbone(self, name: str) -> Backbone:
        """Raises: UnknownNameError."""
        return _find("backbone", name, self.backbones)

    def find_pair(self, name: str) -> Pair:
        """Raises: UnknownNameError."""
        return _find("pair", name, self.pairs)

    def find_adapter(self, name: str) -> Family:
        """Raises: UnknownNameError."""
        return _find("adapter", name, self.adapters)

    def find_task(self, name: str) -> Task:
        """A task by its id or an alias; case does not matter, and `-` is `_`.

        Raises: UnknownNameError; UsageError for `folder` and `arrays`, which are no shelf's.
        """
        task = self._task_id(name)
        if name == FOLDER:
            raise UsageError(
                "task 'folder' is the images of --data-dir: no shelf has it.",
                hint="`idat train --task folder --data-dir DIR --adapter lora --dry-run` shows its "
                "recipe.",
            )
        if name == ARRAYS:
            raise UsageError(
                "task 'arrays' is the images that a Python program holds: no shelf has it.",
                hint='get_recipe("arrays", adapter, data=…) makes a recipe for run(recipe, data=…)',
            )
        if task is None:
            raise UnknownNameError("task", name, [*self._task_ids, *TASK_WORDS])
        return self.tasks[task]

    def find_source(self, name: str) -> DataSource:
        """Raises: UnknownNameError."""
        return _find("source", name, self.sources)

    def source_of(self, task: Task) -> DataSource | None:
        """Where a task's images can be had; a user's own source before the built-in one."""
        fitting = [source for source in self.sources.values() if source.suite == task.suite]
        own = [source for source in fitting if self.is_own("source", source.name)]
        return next(iter([*own, *fitting]), None)

    def has_task(self, name: str) -> bool:
        """Whether `find_task` would find it."""
        return self._task_id(name) is not None

    def aliases_of(self, task: str) -> list[str]:
        """The other names of a task."""
        return [alias for alias, name in self.aliases.items() if name == task]

    @cached_property
    def _task_ids(self) -> dict[str, str]:
        return {task: task for task in self.tasks} | dict(self.aliases)

    def _task_id(self, name: str) -> str | None:
        """The id of the one task that has this name, or has it in another spelling."""
        if name in self._task_ids:
            return self._task_ids[name]
        alike = {task for other, task in self._task_ids.items() if folded(other) == folded(name)}
        return alike.pop() if len(alike) == 1 else None

    def with_task(self, task: Task, *, pair: str) -> "Registry":
        """The same shelves with one task more, or in another's place."""
        return replace(
            self,
            tasks={**self.tasks, task.id: task},
            default_pairs={**self.default_pairs, task.id: pair},
        )

    def is_own(self, kind: str, name: str) -> bool:
        """Whether a user's shelf wrote it, anew or over the built-in one."""
        file = self.files.get((kind, name))
        return file is not None and BUILTIN not in file.parents


def _find(kind: str, name: str, known: Mapping[str, Entry]) -> Entry:
    if name not in known:
        raise UnknownNameError(kind, name, known)
    return known[name]


def task_groups(registry: Registry) -> dict[str, list[Task]]:
    """VTAB-1K's tasks by group."""
    return {
        group: [t for t in registry.tasks.values() if t.suite == SUITE and t.group == group]
        for group in GROUPS
    }


def task_suites(registry: Registry) -> dict[str, list[Task]]:
    """All tasks of a shelf by suite; those of plugins come last."""
    return {
        suite: [task for task in registry.tasks.values() if task.suite == suite]
        for suite in (*SUITES, *providers(SUITES_GROUP))
    }


def resolve_tasks(text: str, registry: Registry) -> list[Task]:
    """The tasks of a comma list of tasks, suites and VTAB-1K's groups; each once, in order.

    `all` is VTAB-1K. Raises: UnknownNameError; RecipeError for an empty name.
    """
    members = task_groups(registry) | task_suites(registry)
    members[ALL] = members[SUITE]
    members = {  # a task goes before a plugin's suite of the same name
        folded(name): tasks
        for name, tasks in members.items()
        if name in TASK_WORDS or not registry.has_task(name)
    }
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise RecipeError([f"task '{text}': expected names with commas between, e.g. dtd,svhn"])
    found = (
        task for name in names for task in members.get(folded(name)) or [registry.find_task(name)]
    )
    return list({task.id: task for task in found}.values())


def resolve_adapters(text: str, registry: Registry) -> list[Family]:
    """The adapters of a comma list of names; `all` is every one.

    Raises: UnknownNameError; RecipeError for an empty name, one that is there twice, or `all`
        beside others.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise RecipeError(
            [f"adapter '{text}': expected names with commas between, e.g. lora,linear"]
        )
    if names == [ALL]:
        return registry.adapters.described()
    if ALL in names:
        raise RecipeError([f"adapter '{text}': 'all' stands alone"])
    found = [registry.find_adapter(name) for name in names]
    twice = [family.word for family in found if found.count(family) > 1]
    if twice:
        raise RecipeError([f"adapter '{text}': '{twice[0]}' is named twice"])
    return found


def resolve_held(text: str, held: Collection[str], registry: Registry) -> list[str]:
    """Ids of the tasks of a comma list as `resolve_tasks` takes it, where the `held` are meant.

    These need not be on a shelf any more; `folder` and `arrays` are all that are one's own images.

    Raises: UnknownNameError; RecipeError for an empty name.
    """
    found: list[str] = []
    for name in (name.strip() for name in text.split(",")):
        if name in held:
            found.append(name)
        elif name in (FOLDER, ARRAYS):
            found += [task for task in held if task.startswith(f"{name}-")] or [name]
        else:
            found += [task.id for task in resolve_tasks(name, registry)]
    return list(dict.fromkeys(found))


def load_registry(shelf: Path | None = None) -> Registry:
    """The built-in shelf with a user's own, if there is one, laid over it.

    Raises: RecipeError with every fault of every file.
    """
    faults: list[str] = []
    shelves = [BUILTIN]
    if shelf is not None:
        faults += _foreign_files(shelf)
        shelves.append(shelf)
    broken: set[str] = set()
    raw = {
        name: _read_tables([file for root in shelves for file in root.glob(name)], faults, broken)
        for name in SHELF_FILES
    }
    raw["tasks.toml"] = _expand_shots(raw["tasks.toml"])
    raw["backbones.toml"] = {
        name: _with_timms_values(table, faults) for name, table in raw["backbones.toml"].items()
    }
    raw["adapters.toml"] = _read_tables([BUILTIN / "adapters.toml"], faults, broken)

    backbones = {
        name: marked(spec)
        for name, spec in _check_all(Backbone, raw["backbones.toml"], faults).items()
    }
    pair_tables = _check_all(PairTable, raw["pairs.toml"], faults)
    sources = _check_all(DataSource, raw["sources.toml"], faults)
    task_tables = _check_all(TaskTable, raw["tasks.toml"], faults, key="id")
    families = _check_all(Family, raw["adapters.toml"], faults)

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


@dataclass(frozen=True)
class _Raw:
    """A table as it was read, and the file it was read from."""

    file: Path
    name: str
    table: Mapping[str, Any]

    @property
    def where(self) -> str:
        return f"{self.file}: [{self.name}]"

    @property
    def builtin(self) -> bool:
        return self.file.parent == BUILTIN


def _foreign_files(shelf: Path) -> list[str]:
    """Faults of a user's folder: not a folder, empty, or TOML files no one would read."""
    try:
        if not shelf.is_dir():
            return [f"{shelf}: the shelf is not a folder"]
    except PermissionError:
        return [f"{shelf}: the shelf cannot be read: Permission denied"]
    names = sorted(path.name for path in shelf.glob("*.toml"))
    if not names and not any(shelf.glob("recipes/*.toml")):
        return [f"{shelf}: no shelf: none of {', '.join(SHELF_FILES)} or recipes/*.toml is there"]
    return [
        f"{shelf / name}: {unknown('shelf file', name, SHELF_FILES)}"
        for name in names
        if name not in SHELF_FILES
    ]


def _read_tables(files: Iterable[Path], faults: list[str], broken: set[str]) -> dict[str, _Raw]:
    """The tables of the files by name; later files win. Files that are no TOML are `broken`."""
    tables: dict[str, _Raw] = {}
    for file in files:
        try:
            content = parse_toml(read_text(file), where=str(file))
        except RecipeError as error:
            faults += error.faults
            broken.add(file.name)
            continue
        for name, table in content.items():
            if not isinstance(table, dict):
                faults.append(f"{file}: {name}: expected a table [{name}] (got {table!r})")
            elif not re.fullmatch(NAME, name):
                faults.append(
                    f"{file}: [{name}]: a name has only letters, digits, '_', '-' and '.'"
                )
            else:
                tables[name] = _Raw(file, name, table)
    return tables


def _expand_shots(tables: Mapping[str, _Raw]) -> dict[str, _Raw]:
    """A task NAME with `shots = [1, 2]` stands for the tasks NAME_1 and NAME_2."""
    expanded: dict[str, _Raw] = {}
    for name, raw in tables.items():
        shots = raw.table.get("shots")
        if not isinstance(shots, list):
            expanded[name] = raw
            continue
        for count in shots:
            own = f"{name}_{count}"
            expanded[own] = _Raw(raw.file, own, {**raw.table, "shots": count})
    return expanded


def _with_timms_values(raw: _Raw, faults: list[str]) -> _Raw:
    table = dict(raw.table)
    with collecting(faults):
        table = with_timms_values(table, where=raw.where)
    return replace(raw, table=table)


def _check_all(
    model: type[Model], tables: Mapping[str, _Raw], faults: list[str], *, key: str = "name"
) -> dict[str, Model]:
    checked = {}
    for name, raw in tables.items():
        with collecting(faults):
            checked[name] = check_table(model, raw.table, where=raw.where, given={key: name})
    return checked


def _dangling_pairs(pairs: Mapping[str, _Raw], known: Known) -> Iterator[str]:
    for raw in pairs.values():
        for role in ("teacher", "student"):
            yield from known.dangling("backbone", raw.table.get(role), where=f"{raw.where}: {role}")


def _dangling_tasks(tasks: Mapping[str, _Raw], known: Known) -> Iterator[str]:
    """Pairs that are not there, and names that two tasks or a group would share."""
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
