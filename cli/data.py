"""`idat data`: check, describe and download the images of tasks, and manage the cache."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idat_zoo.cli.data_facts import (
    Facts,
    facts_row,
    folder_facts,
    lists_there,
    print_facts,
    task_facts,
)
from idat_zoo.cli.help import PlainCommand
from idat_zoo.cli.options import (
    DataDirOption,
    JsonOption,
    MegapixelsOption,
    PluginOption,
    ShelfOption,
    TasksArgument,
    YesOption,
)
from idat_zoo.cli.screen import SOME_FAILED, note, plain, print_json, print_table, size
from idat_zoo.errors import DataError, UsageError

if TYPE_CHECKING:
    from idat_zoo.data.cache import Entry
    from idat_zoo.data.verify import Finding
    from idat_zoo.pulling import Pulled
    from idat_zoo.recipe import Task
    from idat_zoo.registry import Registry

NAMED = 3  # the largest number of images that a remark lists

app = typer.Typer()


@app.callback()
def data() -> None:
    """Tasks on disk: fetch, check, and see what is kept decoded."""


@app.command(cls=PlainCommand)
def verify(
    tasks: TasksArgument = None,
    data_dir: DataDirOption = None,
    shelf: ShelfOption = None,
    plugin: PluginOption = None,
    max_megapixels: MegapixelsOption = 64,
    json: JsonOption = False,
) -> None:
    """Check lists, images and decoded copies; every fault is listed.

    Without TASK, all tasks are checked that have a list below --data-dir.
    """
    from idat_zoo.cli.progress import LiveProgress
    from idat_zoo.data.reading import Reading
    from idat_zoo.data.verify import verify_folder, verify_task
    from idat_zoo.registry import load_registry

    registry = load_registry(shelf)
    own, chosen = _chosen(tasks, registry)
    reading = Reading(max_megapixels=max_megapixels)
    places: list[Path | Task] = [_own_place(data_dir)] if own else []
    places += chosen if tasks else _lying_below(data_dir, registry)
    findings: list[Finding] = []
    for asked in places:
        with LiveProgress() as progress:
            if isinstance(asked, Path):
                found = verify_folder(asked, reading=reading, listener=progress)
            else:
                found = verify_task(asked, data_dir, reading=reading, listener=progress)
        findings.append(found)
        if not json:
            _print_finding(found)
    if json:
        print_json({"tasks": [found.model_dump(mode="json") for found in findings]})
    failed = sum(bool(found.faults) for found in findings)
    if failed:
        note(f"{failed} of {len(findings)} tasks have faults")
        raise typer.Exit(SOME_FAILED if failed < len(findings) else DataError.exit_code)


@app.command(cls=PlainCommand)
def info(
    tasks: TasksArgument = None,
    data_dir: DataDirOption = None,
    shelf: ShelfOption = None,
    plugin: PluginOption = None,
    json: JsonOption = False,
) -> None:
    """What is expected of a task's data, and what is there."""
    from idat_zoo.registry import load_registry

    registry = load_registry(shelf)
    own, chosen = _chosen(tasks, registry)
    facts = [folder_facts(data_dir)] if own else []
    every = chosen if tasks else registry.tasks.values()
    facts += [task_facts(task, data_dir, registry.source_of(task)) for task in every]
    if json:
        print_json({"tasks": facts})
    elif tasks:
        for number, known in enumerate(facts):
            print_facts(known, blank_before=number > 0)
    else:
        columns = ["task", "suite", "classes", "train", "val", "test", "here"]
        print_table(columns, [facts_row(known) for known in facts])
        note("`idat data info TASK` says more")


@app.command(cls=PlainCommand)
def pull(
    tasks: TasksArgument = None,
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="NAME", help="A source of the shelves, if not the first."),
    ] = None,
    data_dir: DataDirOption = None,
    shelf: ShelfOption = None,
    plugin: PluginOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Fetch the images of tasks from the Hub.

    They are put into --data-dir, else into the user's data folder.

    For example: idat data pull dtd,svhn
    """
    from idat_zoo.cli.downloads import pull_asked
    from idat_zoo.registry import load_registry

    if not tasks:
        raise UsageError("TASK says what to fetch; all is VTAB-1K.")
    registry = load_registry(shelf)
    own, chosen = _chosen(tasks, registry)
    if own:
        raise UsageError("folder is your own images; there is nothing to fetch.")
    here = pull_asked(chosen, registry=registry, source=source, data_dir=data_dir, yes=yes)
    if json:
        print_json({"tasks": [_pulled_facts(pulled) for pulled in here]})
    else:
        for pulled in here:
            about = "fetched" if pulled.num_files else "was here before"
            typer.echo(plain(f"{pulled.task}  {about}  {pulled.folder}"))
    if len(here) < len(chosen):
        raise typer.Exit(SOME_FAILED if here else DataError.exit_code)


@app.command(cls=PlainCommand)
def cache(
    tasks: TasksArgument = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove them, and what killed processes left.")
    ] = False,
    shelf: ShelfOption = None,
    plugin: PluginOption = None,
    json: JsonOption = False,
) -> None:
    """The images that are kept decoded, and what they take.

    They are below IDAT_CACHE_DIR, else in the user's cache folder. They can be
    removed without loss: the next training decodes the images again.
    """
    from idat_zoo.data.cache import Cache, free_bytes
    from idat_zoo.places import default_cache
    from idat_zoo.registry import load_registry, resolve_held

    kept = Cache(default_cache())
    entries = kept.entries()
    if tasks:
        held = {entry.task for entry in entries.values()}
        asked = resolve_held(",".join(tasks), held, load_registry(shelf))
        entries = {key: entry for key, entry in entries.items() if entry.task in asked}
    if not json:
        _print_entries(list(entries.values()))
    removed = {key: kept.remove(key) for key in entries} if clean else {}
    freed = sum(removed.values()) + (kept.sweep() if clean else 0)
    total, free = sum(entry.num_bytes for entry in entries.values()), free_bytes(kept.folder)
    if json:
        print_json(
            {
                "folder": str(kept.folder),
                "entries": [_entry_facts(key, entry) for key, entry in entries.items()],
                "bytes": total,
                "freed_bytes": freed,
                "free_bytes": free,
            }
        )
    else:
        done = f"{size(freed)} freed" if clean else f"{len(entries)} lists, {size(total)}"
        typer.echo(plain(f"{done} in {kept.folder}; {size(free)} are free there"))
    for key in (key for key, bytes_freed in removed.items() if not bytes_freed):
        note(f"left, as another process is at it: {entries[key].what}")


def _pulled_facts(pulled: "Pulled") -> Facts:
    return {
        "task": pulled.task,
        "folder": str(pulled.folder),
        "fetched_files": pulled.num_files,
        "fetched_bytes": pulled.num_bytes,
    }


def _words(tasks: Sequence[str]) -> list[str]:
    return [name.strip() for name in ",".join(tasks).split(",")]


def _chosen(tasks: Sequence[str] | None, registry: "Registry") -> tuple[bool, list["Task"]]:
    """Whether `folder` is among the names, and the shelves' tasks of the other names."""
    from idat_zoo.registry import FOLDER, resolve_tasks

    names = _words(tasks) if tasks else []
    others = [name for name in names if name != FOLDER]
    return FOLDER in names, resolve_tasks(",".join(others), registry) if others else []


def _own_place(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise UsageError("folder is the images of --data-dir, which is not given.")
    return data_dir


def _lying_below(data_dir: Path | None, registry: "Registry") -> list["Task"]:
    """The tasks of which at least one list is in the data folder.

    Raises: UsageError if there is none and no folder was given; DataError if there is none in the
    given folder.
    """
    from idat_zoo.data.on_disk import data_folder, verify_command

    found = [task for task in registry.tasks.values() if any(lists_there(task, data_dir).values())]
    if not found and data_dir is None:
        raise UsageError(
            "TASK or --data-dir says what to check.", hint="`idat data info` says what is expected."
        )
    if not found:
        raise DataError(
            f"no list of a task lies below '{data_folder(data_dir)}'.",
            hint=f"`idat data info` says what is expected; `{verify_command('folder', data_dir)}` "
            "checks images of your own.",
        )
    return found


def _print_finding(found: "Finding") -> None:
    count = len(found.faults)
    verdict = "ok" if not count else "1 fault" if count == 1 else f"{count:,} faults"
    told = [f"{found.images:,} images in {len(found.lists)} lists"] if found.lists else []
    told += [f"{found.cached} of them cached"] if found.cached else []
    about = ", ".join(told) or found.place
    _print_line(f"{verdict:<8}  {found.task}" + (f": {about}" if about else ""))
    for fault in found.faults:
        _print_line(f"  {fault}")
    notes = list(found.notes)
    if found.test_in_training:
        twins = found.test_in_training
        more = "; --json names all" if len(twins) > NAMED else ""
        subject = "1 test image has" if len(twins) == 1 else f"{len(twins):,} test images have"
        notes.append(
            f"{subject} the same bytes as an image that is learnt from: "
            f"{', '.join(twins[:NAMED])}{more}"
        )
    for remark in notes:
        _print_line(f"  note: {remark}")


def _print_line(text: str) -> None:
    """Print a text on one line, even if it contains a file name with a line break."""
    typer.echo(plain(text.replace("\n", "\\n")))


def _print_entries(entries: Sequence["Entry"]) -> None:
    rows = [
        [
            entry.what,
            f"{entry.count:,}",
            f"{entry.size} x {entry.size}",
            _kept(entry),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.made)),
        ]
        for entry in entries
    ]
    if rows:
        print_table(["images of", "count", "pixels", "on disk", "made"], rows)


def _kept(entry: "Entry") -> str:
    if entry.unreadable:
        return f"{len(entry.unreadable):,} unreadable"
    return size(entry.num_bytes) if entry.kept else "streamed"


def _entry_facts(key: str, entry: "Entry") -> Facts:
    return {"key": key, "task": entry.task, **entry.model_dump(mode="json")} | {
        "bytes": entry.num_bytes
    }
