"""Comma lists of names, as --task and --adapter take them -> entries of the registry."""

from collections.abc import Collection

from idat_zoo.errors import RecipeError, folded
from idat_zoo.outside import SUITES_GROUP, providers
from idat_zoo.recipe import Task
from idat_zoo.registry.registry import Registry
from idat_zoo.registry.shelves import Family
from idat_zoo.registry.task_words import ALL, ARRAYS, FOLDER, GROUPS, SUITE, SUITES, TASK_WORDS


def resolve_tasks(text: str, registry: Registry) -> list[Task]:
    """The tasks that a comma list names: tasks, suites, groups of VTAB-1K, or `all` of VTAB-1K.

    Each task comes once, in the order of the list.

    Raises: UnknownNameError; RecipeError for an empty name.
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
    """The adapter families that a comma list names; `all` alone names every one.

    Raises: UnknownNameError; RecipeError for an empty name, a name that occurs twice, or `all`
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
    """The ids of the tasks that a comma list names among those whose images are cached (`held`).

    A held task need not be on a shelf any more. `folder` and `arrays` name all held tasks that
    were made of a user's own images.

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


def task_groups(registry: Registry) -> dict[str, list[Task]]:
    """The tasks of VTAB-1K by group."""
    return {
        group: [t for t in registry.tasks.values() if t.suite == SUITE and t.group == group]
        for group in GROUPS
    }


def task_suites(registry: Registry) -> dict[str, list[Task]]:
    """All tasks of the shelves by suite; the suites of plugins come last."""
    return {
        suite: [task for task in registry.tasks.values() if task.suite == suite]
        for suite in (*SUITES, *providers(SUITES_GROUP))
    }
