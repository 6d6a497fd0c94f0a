"""Published results: the tables of published/, per-task top-1 that papers print or others released.

A file is a collection. Each of its tables is one method; `[defaults]` has the keys that all of
them share.
"""

from collections.abc import Iterator
from pathlib import Path

from idat_zoo.errors import RecipeError
from idat_zoo.published_rows import PublishedRow
from idat_zoo.recipe_toml import parse_toml, read_text
from idat_zoo.registry.load import load_registry
from idat_zoo.registry.shelves import Known, check_table, collecting

FOLDER = Path(__file__).with_name("published")
COLLECTIONS = ("papers", "osu")
DEFAULTS = "defaults"


def load_published(folder: Path = FOLDER) -> list[PublishedRow]:
    """All published rows, in the order of `COLLECTIONS` and of each file.

    Raises: RecipeError with every fault.
    """
    known = Known({"task": set(load_registry().tasks)})
    faults: list[str] = []
    rows = []
    for name in COLLECTIONS:
        with collecting(faults):
            found = _read(folder / f"{name}.toml", faults)
            rows += found
            faults += [fault for row in found for fault in _dangling(row, known)]
    if faults:
        raise RecipeError(faults)
    return rows


def _read(file: Path, faults: list[str]) -> list[PublishedRow]:
    """The rows of a collection that have no fault; those of the others are appended."""
    tables = parse_toml(read_text(file), where=file.name)
    shared = tables.pop(DEFAULTS, {})
    rows = []
    for method, table in tables.items():
        where = f"{file.name}: [{method}]"
        if not isinstance(table, dict) or not isinstance(shared, dict):
            faults.append(f"{where}: a method and [{DEFAULTS}] are tables")
            continue
        with collecting(faults):
            given = {"table": file.stem, "method": method}
            rows.append(check_table(PublishedRow, shared | table, where=where, given=given))
    return rows


def _dangling(row: PublishedRow, known: Known) -> Iterator[str]:
    """The faults of task names that no shelf has, and of a best epoch below the last one."""
    where = f"{row.table}.toml: [{row.method}]"
    tasks = dict.fromkeys([*row.top1, *row.top1_best_on_test, *row.tuned])
    yield from known.dangling("task", list(tasks), where=where)
    for task, best in row.top1_best_on_test.items():
        if best < row.top1.get(task, 1.0):
            yield f"{where}: top1_best_on_test of {task} is below its top1, or has none beside it"
