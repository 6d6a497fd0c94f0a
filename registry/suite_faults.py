"""Faults of a shelf's table that names a suite: of the suite itself, and of the group in it."""

from collections.abc import Mapping
from typing import Any

from idat_zoo.data.suites import SUITES, load_suite
from idat_zoo.data.suites.base import Suite
from idat_zoo.data.suites.vtab1k import Vtab1k
from idat_zoo.errors import UnknownNameError, UsageError
from idat_zoo.outside import SUITES_GROUP, providers


def suite_faults(table: Mapping[str, Any], *, where: str) -> list[str]:
    """The faults of `suite` and `group` in a table of a task or a source of images.

    Values of a wrong type are left to the tables' models.
    """
    name, group = table.get("suite"), table.get("group")
    if not isinstance(name, str):
        return []
    try:
        suite = load_suite(name)
    except (UnknownNameError, UsageError) as error:
        return [f"{where}: suite: {error.message} {error.hint}".rstrip()]
    faults = []
    if suite.no_shelf:
        own = [suite for suite in SUITES if not load_suite(suite).no_shelf]
        known = ", ".join((*own, *providers(SUITES_GROUP)))
        faults.append(f"{where}: suite: '{name}' {suite.no_shelf}; a shelf's task is of {known}")
    if isinstance(group, str):
        faults += _group_faults(suite, group, where=where)
    return faults


def _group_faults(suite: Suite, group: str, *, where: str) -> list[str]:
    """A suite without groups takes those of VTAB-1K."""
    groups = suite.groups or Vtab1k.groups
    if group in groups:
        return []
    *others, last = map(repr, groups)
    expected = f"{', '.join(others)} or {last}" if others else last
    return [f"{where}: group: Input should be {expected} (got {group!r})"]
