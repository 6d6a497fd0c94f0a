"""The checks of the suite and group that a task, or a source of images, names."""

from collections.abc import Mapping
from typing import Any

from idat_zoo.data.suites import SUITES, is_known, load_suite
from idat_zoo.data.suites.base import Suite
from idat_zoo.data.suites.vtab1k import Vtab1k
from idat_zoo.errors import UnknownNameError, UsageError
from idat_zoo.outside import SUITES_GROUP, lacking, providers
from idat_zoo.recipe import Task


def suite_faults(table: Mapping[str, Any], *, where: str, on_shelf: bool = True) -> list[str]:
    """The faults of `suite` and `group` in a table.

    With `on_shelf`, the suites of a user's own images are faults, because their tasks cannot be on
    a shelf. Values of a wrong type are skipped; the models of the tables report them.
    """
    name, group = table.get("suite"), table.get("group")
    if not isinstance(name, str):
        return []
    try:
        suite = load_suite(name)
    except (UnknownNameError, UsageError) as error:
        return [f"{where}: suite: {error.message} {error.hint}".rstrip()]
    faults = []
    if on_shelf and suite.no_shelf:
        own = [suite for suite in SUITES if not load_suite(suite).no_shelf]
        known = ", ".join((*own, *providers(SUITES_GROUP)))
        faults.append(f"{where}: suite: '{name}' {suite.no_shelf}; a shelf's task is of {known}")
    if isinstance(group, str):
        faults += _group_faults(suite, group, where=where)
    return faults


def task_faults(task: Task, *, where: str) -> list[str]:
    """The faults of a resolved recipe's task: unknown suite or group, or a plugin not loaded."""
    if task.plugin is not None and not is_known(task.suite):
        return [f"{where}: {lacking('suite', task.suite, task.plugin)}".replace("\n", " ")]
    table = {"suite": task.suite, "group": task.group}
    return suite_faults(table, where=f"{where}: task", on_shelf=False)


def _group_faults(suite: Suite, group: str, *, where: str) -> list[str]:
    """The fault of an unknown group; a suite without groups allows those of VTAB-1K."""
    groups = suite.groups or Vtab1k.groups
    if group in groups:
        return []
    *others, last = map(repr, groups)
    expected = f"{', '.join(others)} or {last}" if others else last
    return [f"{where}: group: must be {expected} (got {group!r})"]
