"""`idat list` alone: every name by kind, what runs here without a download, what to try first."""

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from idat_zoo.cli.screen import print_json

if TYPE_CHECKING:
    from idat_zoo.recipe import Task
    from idat_zoo.registry import Registry

TRY = ("idat train --task digits --adapter lora", "idat eval builtin:digits-lora")
MANY = 4
"""From this many names with a common beginning on, one pattern is shown: `tiny_random_*`."""


def print_overview(registry: "Registry", data_dir: Path | None, *, json: bool) -> None:
    """Print one screen: names by kind, what runs without a download, and commands to try."""
    from idat_zoo.registry import GROUPS, SUITE, task_groups, task_suites
    from idat_zoo.registry.local import images_here, pair_weights_here

    tasks = list(registry.tasks.values())
    suites = task_suites(registry)
    by_name = suites | task_groups(registry)
    labels = [label for suite in suites for label in (GROUPS if suite == SUITE else (suite,))]
    groups = {label: by_name[label] for label in labels}
    here = [task for task in tasks if images_here(task, data_dir)]
    pairs = [pair.name for pair in registry.pairs.values() if pair_weights_here(pair)]
    recipes = len(registry.pairs) * len(registry.adapters) * len(tasks)
    if json:
        print_json(
            {
                "adapters": list(registry.adapters),
                "pairs": list(registry.pairs),
                "tasks": {label: [task.id for task in held] for label, held in groups.items()},
                "runs_here": {"tasks": [task.id for task in here], "pairs": pairs},
                "recipes": recipes,
                "try": TRY,
            }
        )
        return
    sections = {
        f"Adapters ({len(registry.adapters)})": {"": list(registry.adapters)},
        f"Pairs ({len(registry.pairs)}), teacher first": {"": _folded(registry.pairs)},
        f"Tasks ({len(tasks)}); {', '.join(GROUPS[:-1])} and {GROUPS[-1]} are {SUITE}'s": {
            label: _condensed(held) for label, held in groups.items()
        },
        "Runs here now, nothing to download": {"tasks": _condensed(here), "pairs": _folded(pairs)},
    }
    for title, lines in sections.items():
        typer.echo(title)
        for label, names in lines.items():
            typer.echo(_wrapped(label, names))
    typer.echo(f"Recipes ({recipes}): every pair/adapter/task, see `idat list recipes`; try:")
    for command in TRY:
        typer.echo(f"  {command}")


def _condensed(tasks: Iterable["Task"]) -> list[str]:
    """Names of tasks; few-shot tasks with the same shots become one: `fewshot_{a,b}_{1,2}`."""
    shots: dict[str, list[str]] = {}
    for task in tasks:
        numbers = shots.setdefault(task.id.removesuffix(f"_{task.shots}"), [])
        numbers += [str(task.shots)] if task.shots else []
    alike: dict[str, list[str]] = {}
    for stem, numbers in shots.items():
        first, cut, last = stem.rpartition("_") if numbers else ("", "", stem)
        around = f"{first}{cut}{{}}_{_braced(numbers)}" if numbers else stem
        alike.setdefault(around, []).append(last)
    return [around.replace("{}", _braced(names)) for around, names in alike.items()]


def _braced(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{{{','.join(words)}}}"


def _folded(names: Iterable[str]) -> list[str]:
    """Names; where MANY begin with another name, they become one pattern for `list`: `a_*`."""
    names = list(names)

    def longer(stem: str) -> list[str]:
        return [name for name in names if name.startswith(f"{stem}_")]

    stems = {name: stem for stem in names if len(longer(stem)) >= MANY for name in longer(stem)}
    return list(dict.fromkeys(f"{stems[name]}_*" if name in stems else name for name in names))


def _wrapped(label: str, names: list[str]) -> str:
    first = f"  {label.ljust(12)}" if label else "  "
    return textwrap.fill(
        " ".join(names) or "none",
        width=80,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_on_hyphens=False,
    )
