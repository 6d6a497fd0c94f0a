"""The facts of a task that `idat data info` prints: the expected files, and those that exist."""

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from idat_zoo.cli.screen import plain

if TYPE_CHECKING:
    from idat_zoo.recipe import Task
    from idat_zoo.sources import DataSource

Facts = dict[str, Any]  # values that JSON can represent


def task_facts(task: "Task", data_dir: Path | None, source: "DataSource | None") -> Facts:
    """The facts of a shelf's task; `source` is what `idat data pull` would download from."""
    from idat_zoo.data.on_disk import pulled_from
    from idat_zoo.data.suites import suite_of
    from idat_zoo.data.suites.base import Place

    suite = suite_of(task)
    folder = suite.folder(task, data_dir) if suite.place is not Place.BUILT_IN else None
    fields = ("title", "suite", "group", "num_classes", "num_train", "num_val", "num_test", "shots")
    written = task.model_dump(mode="json", include={*fields, "source", "licence"})
    return {
        "task": task.id,
        **{field: written[field] for field in fields},
        "layout": suite.describe_layout(task),
        "place": None if folder is None else str(folder),
        "lists": lists_there(task, data_dir),
        "source": written["source"],
        "licence": written["licence"],
        "pull": source and f"{source.title}: {source.place}; licence {source.licence}",
        "copy": None if folder is None else pulled_from(folder),
    }


def folder_facts(data_dir: Path | None) -> Facts:
    """The facts of a user's own images in `data_dir`, all of them read from disk."""
    from idat_zoo.data.folder import list_folder
    from idat_zoo.data.listing import count_classes
    from idat_zoo.data.suites.folder import OwnFolder

    facts: Facts = {"task": OwnFolder.name, "title": OwnFolder.title, "layout": OwnFolder.layout}
    if data_dir is None:
        return facts | {"place": None}
    faults: list[str] = []
    listing = list_folder(data_dir, faults)
    return facts | {
        "place": str(data_dir),
        "num_classes": len(listing.class_names),
        "classes": count_classes(listing),
        **{f"num_{split}": [len(rows)] for split, rows in listing.splits.items()},
        "notes": listing.notes,
        "faults": faults,
    }


def lists_there(task: "Task", data_dir: Path | None) -> dict[str, bool]:
    """The list files of a task, for every seed that has some, and whether each exists.

    Few-shot tasks share their test list. So it only counts as existing if there is also a training
    list of the task.
    """
    from idat_zoo.data.suites import suite_of

    suite = suite_of(task)
    seeds = suite.drawn_seeds(task, data_dir)
    names = [name for seed in seeds or [0] for name in suite.needed_lists(task, seed=seed)]
    folder = suite.folder(task, data_dir)
    return {name: bool(seeds) and (folder / name).is_file() for name in names}


def facts_row(facts: Mapping[str, Any]) -> list[str]:
    """A row of the table of all tasks: task, suite, classes, three counts, and its presence."""
    counts = _counts(facts).values()
    return [facts["task"], facts["suite"], str(facts["num_classes"]), *counts, _presence(facts)]


def print_facts(facts: Mapping[str, Any], *, blank_before: bool) -> None:
    """Print the facts of one task, one per line, without those that are empty."""
    if blank_before:
        typer.echo()
    typer.echo(plain(f"{facts['task']}  {facts['title']}"))
    group = f", {facts['group']}" if facts.get("group") else ""
    lists = facts.get("lists", {})
    told = {
        "suite": f"{facts['suite']}{group}" if "suite" in facts else "",
        "classes": str(facts.get("num_classes", "")),
        "images": ", ".join(f"{split} {count}" for split, count in _counts(facts).items()),
        "layout": facts["layout"],
        "place": facts["place"] or "",
        "there": ", ".join(name for name, there in lists.items() if there),
        "missing": ", ".join(name for name, there in lists.items() if not there),
        "pull": facts.get("pull") or "",
        "copy": facts.get("copy") or "",
        "source": facts.get("source", ""),
        "licence": facts.get("licence", ""),
    }
    for name, value in told.items():
        if value:
            _print_wrapped(name, value)
    for fault in facts.get("faults", []):
        _print_wrapped("fault", fault)
    for remark in facts.get("notes", []):
        _print_wrapped("note", remark)


def _counts(facts: Mapping[str, Any]) -> dict[str, str]:
    """The expected number of images by split, as text, if it is known."""
    known = {split: facts.get(f"num_{split}") for split in ("train", "val", "test")}
    counts = {split: _sizes(sizes) for split, sizes in known.items() if sizes is not None}
    if facts.get("shots"):
        counts |= {"train": f"{facts['shots']}/class", "val": "0"}
    return counts


def _sizes(known: Sequence[int]) -> str:
    """The allowed sizes of a split, as text; any size if there are none."""
    return " or ".join(f"{size:,}" for size in known) or "any"


def _presence(facts: Mapping[str, Any]) -> str:
    there = list(facts["lists"].values())
    if not there:
        return "built in"
    return "yes" if all(there) else "some" if any(there) else "no"


def _print_wrapped(name: str, value: str) -> None:
    first = f"  {name:<8}  "
    typer.echo(
        textwrap.fill(
            plain(value.replace("\n", "\\n")),
            shutil.get_terminal_size().columns,
            initial_indent=first,
            subsequent_indent=" " * len(first),
            break_on_hyphens=False,
            break_long_words=False,
        )
    )
