"""Registry: everything that the shelves hold, found by name."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from idat_zoo.errors import UnknownNameError, UsageError, folded
from idat_zoo.recipe import Backbone, Pair, Task
from idat_zoo.registry.families import Families
from idat_zoo.registry.pair_forms import base_name, find_form
from idat_zoo.registry.recipe_files import Rule
from idat_zoo.registry.shelves import Family
from idat_zoo.registry.task_words import ARRAYS, FOLDER, TASK_WORDS
from idat_zoo.sources import DataSource
from idat_zoo.specs import AdapterSpec

BUILTIN = Path(__file__).parent
"""The folder of the built-in shelf."""

Entry = TypeVar("Entry")


@dataclass(frozen=True, kw_only=True)
class Registry:
    """Everything that the built-in shelf and a user's own hold, each kind by name.

    `rules` are the recipe rules of each pair, in the order in which they apply. `aliases` maps
    other names of tasks to their ids. `default_pairs` maps tasks to the pair that trains them
    unless another is asked for. `files` maps a kind and a name, as ("task", "dtd"), to the file
    that defines it.
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
        """A pair by its name, or the form of one: `micro`, `micro_swapped`, `micro_twins`.

        Raises: UnknownNameError.
        """
        return find_form(name, self.pairs) or _find("pair", name, self.pairs)

    def has_pair(self, name: str) -> bool:
        """Whether `find_pair` finds a pair of this name."""
        return find_form(name, self.pairs) is not None

    def rules_of(self, pair: str) -> tuple[Rule, ...]:
        """The recipe rules of a pair; a form of a pair has the rules of the pair itself."""
        return self.rules.get(pair) or self.rules.get(base_name(pair), ())

    def find_adapter(self, name: str) -> Family:
        """Raises: UnknownNameError."""
        return _find("adapter", name, self.adapters)

    def read_options(self, choice: AdapterSpec) -> dict[str, Any]:
        """All options of a recipe's adapter, those at their defaults included. No torch is loaded.

        Raises: UnknownNameError for a family that is not there, RecipeError for wrong options.
        """
        return self.find_adapter(choice.name).check(choice.options, where="recipe")

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
        """The source that a task's images can be downloaded from; a user's own takes precedence."""
        fitting = [source for source in self.sources.values() if source.suite == task.suite]
        own = [source for source in fitting if self.is_own("source", source.name)]
        return next(iter([*own, *fitting]), None)

    def has_task(self, name: str) -> bool:
        """Whether `find_task` finds a task of this name."""
        return self._task_id(name) is not None

    def aliases_of(self, task: str) -> list[str]:
        """The other names of a task."""
        return [alias for alias, name in self.aliases.items() if name == task]

    @cached_property
    def _task_ids(self) -> dict[str, str]:
        return {task: task for task in self.tasks} | dict(self.aliases)

    def _task_id(self, name: str) -> str | None:
        """The id of the task with this name; in another spelling, if only one task fits."""
        if name in self._task_ids:
            return self._task_ids[name]
        alike = {task for other, task in self._task_ids.items() if folded(other) == folded(name)}
        return alike.pop() if len(alike) == 1 else None

    def with_task(self, task: Task, *, pair: str) -> "Registry":
        """A registry with this task added, in the place of one with the same id."""
        return replace(
            self,
            tasks={**self.tasks, task.id: task},
            default_pairs={**self.default_pairs, task.id: pair},
        )

    def is_own(self, kind: str, name: str) -> bool:
        """Whether a user's shelf defines it, as a new name or in the place of a built-in one."""
        file = self.files.get((kind, name))
        return file is not None and BUILTIN not in file.parents


def _find(kind: str, name: str, known: Mapping[str, Entry]) -> Entry:
    if name not in known:
        raise UnknownNameError(kind, name, known)
    return known[name]
