"""The tasks that reports take means over, by suite and group."""

from idat_zoo.data.suites import SUITES, load_suite
from idat_zoo.registry.comma_lists import task_suites
from idat_zoo.registry.load import load_registry
from idat_zoo.registry.registry import Registry


def averaged_tasks(registry: Registry) -> dict[str, dict[str, tuple[str, ...]]]:
    """Suite -> group -> ids of tasks, for each suite that has groups.

    The tasks of a built-in suite are those of the built-in shelf: `mean19` stays the mean over the
    same 19 tasks, whatever a user's shelf adds. The tasks of a plugin's suite are those of the
    given shelves.
    """
    own = any(registry.is_own("task", task) for task in registry.tasks)
    builtin = task_suites(load_registry() if own else registry)
    averaged: dict[str, dict[str, tuple[str, ...]]] = {}
    for suite, tasks in task_suites(registry).items():
        known = builtin[suite] if suite in SUITES else tasks
        groups = {
            group: tuple(task.id for task in known if task.group == group)
            for group in load_suite(suite).groups
        }
        if any(groups.values()):
            averaged[suite] = {group: tasks for group, tasks in groups.items() if tasks}
    return averaged
