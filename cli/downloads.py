"""Downloads: say what images and weights are missing, ask for consent, and fetch them."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from idat_zoo.cli import screen
from idat_zoo.errors import DataError, UsageError, ZooError

if TYPE_CHECKING:
    from idat_zoo.pulling import Pulled
    from idat_zoo.recipe import Backbone, Task
    from idat_zoo.registry import Registry
    from idat_zoo.sources import DataSource

    Wanted = dict[str, tuple[DataSource, list[Task]]]


def offer(
    tasks: Iterable["Task"],
    backbones: Iterable["Backbone"],
    *,
    registry: "Registry",
    data_dir: Path | None,
    yes: bool,
    alone: bool,
) -> bool:
    """Say what is missing and where it would come from; with consent, fetch the images.

    `yes` is consent; without it, the user is asked if there is a terminal. Returns whether weights
    may be downloaded too. An error while fetching is printed and the other tasks go on, unless the
    command is about one thing `alone`.

    Raises: HubError, DataError; only if `alone`.
    """
    wanted = _missing_images(tasks, registry, data_dir)
    agreed = _agrees(wanted, _missing_weights(backbones), data_dir, yes=yes)
    if agreed:
        try:
            fetch(wanted, data_dir, alone=alone)
        except ZooError as error:
            if alone:
                raise
            screen.print_error(error)
    return agreed


def offer_weights(backbones: Iterable["Backbone"], *, yes: bool) -> None:
    """Check that weights are on this machine, or ask for consent to download them.

    Raises: DataError without it.
    """
    backbones = list(backbones)
    agreed = _agrees({}, _missing_weights(backbones), None, yes=yes)
    require_weights(backbones, agreed=agreed)


def require_weights(backbones: Iterable["Backbone"], *, agreed: bool) -> None:
    """Raises: DataError if weights would have to be downloaded without consent."""
    missing = _missing_weights(backbones)
    if missing and not agreed:
        raise DataError(
            f"weights that are not here: {', '.join(missing)}",
            hint="--yes downloads them from the Hub.",
        )


def pull_asked(
    tasks: Iterable["Task"],
    *,
    registry: "Registry",
    source: str | None,
    data_dir: Path | None,
    yes: bool,
) -> list["Pulled"]:
    """Fetch the images of tasks that the user named; images that are there already are kept.

    Raises: UsageError for tasks that no source has, DataError without consent, HubError.
    """
    from idat_zoo.data.suites import suite_of
    from idat_zoo.pulling import Pulled

    tasks = list(tasks)
    own = registry.find_source(source) if source else None
    wanted: Wanted = {}
    nowhere = []
    for task in tasks:
        found = own or registry.source_of(task)
        if found is None or found.suite != task.suite:
            nowhere.append(task.id)
        elif suite_of(task).missing(task, data_dir):
            wanted.setdefault(found.name, (found, []))[1].append(task)
    if nowhere:
        raise UsageError(
            f"{f'source {own.name!r}' if own else 'no source'} has {', '.join(nowhere)}.",
            hint="Tasks of mini and real are built in; sources.toml on a shelf of your own adds a "
            "source.",
        )
    if wanted and not _agrees(wanted, {}, data_dir, yes=yes):
        places = ", ".join(f"{one.place} (licence: {one.licence})" for one, _ in wanted.values())
        raise DataError(f"nothing was fetched from {places}.", hint="--yes fetches without asking.")
    fetched = {pulled.task: pulled for pulled in fetch(wanted, data_dir, alone=len(tasks) == 1)}
    here = [task for task in tasks if not suite_of(task).missing(task, data_dir)]
    return [fetched.get(task.id) or Pulled.before(task, data_dir) for task in here]


def fetch(wanted: "Wanted", data_dir: Path | None, *, alone: bool) -> list["Pulled"]:
    """Fetch the images of tasks. Unless one thing `alone` needs them, errors of a task are printed.


    Raises: HubError; DataError for a source that is not a zip archive, or for the one task.
    """
    from idat_zoo.cli.progress import LiveProgress
    from idat_zoo.pulling import pull

    fetched = []
    for source, tasks in wanted.values():
        with LiveProgress() as progress:
            for outcome in pull(source, tasks, data_dir=data_dir, listener=progress):
                if not isinstance(outcome, DataError):
                    fetched.append(outcome)
                    amount = f"{outcome.num_files:,} files, {screen.size(outcome.num_bytes)}"
                    screen.note(f"{outcome.task}: {amount} in {outcome.folder}")
                elif alone:
                    raise outcome
                else:
                    screen.print_error(outcome)
    return fetched


def _missing_images(
    tasks: Iterable["Task"], registry: "Registry", data_dir: Path | None
) -> "Wanted":
    """The tasks whose image lists are missing, by the name of the source that has them."""
    from idat_zoo.data.suites import suite_of

    wanted: Wanted = {}
    for task in {task.id: task for task in tasks}.values():
        source = registry.source_of(task)
        if source is not None and suite_of(task).missing(task, data_dir):
            wanted.setdefault(source.name, (source, []))[1].append(task)
    return wanted


def _missing_weights(backbones: Iterable["Backbone"]) -> dict[str, "Backbone"]:
    """The repositories of missing weights, each with its backbone."""
    from idat_zoo.backbones.pinned import missing_weights

    return {repo: one for one in backbones if (repo := missing_weights(one))}


def _agrees(
    wanted: "Wanted", weights: dict[str, "Backbone"], data_dir: Path | None, *, yes: bool
) -> bool:
    """Whether what is missing may be downloaded, after it was listed to the user."""
    if not wanted and not weights:
        return yes
    on_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    if not yes and not on_terminal:
        return False
    _list_missing(wanted, weights, data_dir)
    return yes or typer.confirm("Download?", err=True)


def _list_missing(wanted: "Wanted", weights: dict[str, "Backbone"], data_dir: Path | None) -> None:
    """Print what would be downloaded: source, size, licence and destination."""
    from idat_zoo.data.on_disk import data_folder

    for source, tasks in wanted.values():
        screen.note(f"images of {', '.join(task.id for task in tasks)}")
        screen.note(f"  from: {source.title}: {source.place} at {source.revision}")
        screen.note(f"  size: {source.gigabytes} GB for all tasks; only those asked for are read")
        screen.note(f"  licence: {source.licence}")
        if source.remarks:
            screen.note(f"  note: {source.remarks}")
        screen.note(f"  to: {data_folder(data_dir)}")
    for repo, backbone in weights.items():
        from idat_zoo.backbones.pinned import weights_size  # which loads torch

        size = weights_size(backbone)
        amount = f"about {screen.size(size)}" if size else "size not known"
        screen.note(f"weights of {repo}, {amount} (licence: {backbone.licence or 'not stated'})")
