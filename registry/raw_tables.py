"""Raw tables: the TOML tables of shelf files, read and checked one by one.

Every function appends the faults it finds to a list, so that one message can state all of them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from idat_zoo.errors import RecipeError
from idat_zoo.recipe_toml import parse_toml, read_text
from idat_zoo.registry.pretrained import with_timms_values
from idat_zoo.registry.registry import BUILTIN
from idat_zoo.registry.shelves import Model, check_table, collecting

NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"  # names become parts of ids and folders


@dataclass(frozen=True)
class RawTable:
    """A TOML table as it was read, with its name and its file."""

    file: Path
    name: str
    table: Mapping[str, Any]

    @property
    def where(self) -> str:
        """The place of the table, as messages about its faults begin."""
        return f"{self.file}: [{self.name}]"

    @property
    def builtin(self) -> bool:
        """Whether the table is of the built-in shelf."""
        return self.file.parent == BUILTIN


def read_tables(files: Iterable[Path], faults: list[str], broken: set[str]) -> dict[str, RawTable]:
    """The tables of several files by name; a later file's replaces an earlier one's.

    The names of files that are not valid TOML are added to `broken`.
    """
    tables: dict[str, RawTable] = {}
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
                tables[name] = RawTable(file, name, table)
    return tables


def expand_shots(tables: Mapping[str, RawTable]) -> dict[str, RawTable]:
    """Tables of tasks, where NAME with `shots = [1, 2]` became NAME_1 and NAME_2."""
    expanded: dict[str, RawTable] = {}
    for name, raw in tables.items():
        shots = raw.table.get("shots")
        if not isinstance(shots, list):
            expanded[name] = raw
            continue
        for count in shots:
            own = f"{name}_{count}"
            expanded[own] = RawTable(raw.file, own, {**raw.table, "shots": count})
    return expanded


def fill_in_timms_values(raw: RawTable, faults: list[str]) -> RawTable:
    """The table of a backbone with the values of timm's weights that it leaves out."""
    table = dict(raw.table)
    with collecting(faults):
        table = with_timms_values(table, where=raw.where)
    return replace(raw, table=table)


def check_all(
    model: type[Model], tables: Mapping[str, RawTable], faults: list[str], *, key: str = "name"
) -> dict[str, Model]:
    """Every table checked against a model; tables with faults are left out."""
    checked = {}
    for name, raw in tables.items():
        with collecting(faults):
            checked[name] = check_table(model, raw.table, where=raw.where, given={key: name})
    return checked
