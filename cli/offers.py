"""What is not here and can be had from the Hub: told, asked about, fetched."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from idat_zoo.cli import screen
from idat_zoo.errors import DataError, UsageError, ZooError

if TYPE_CHECKING:
    from idat_zoo.checkpoint import Config, Reference
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
    """Say what is missing and where it would come from; with a person's consent, fetch the images.

    `yes` is that consent; else a person is asked, where there is a terminal. Returns whether
    weights may be downloaded. What cannot be fetched is told, and the rest goes on, unless all is
    for one thing `alone`.

    Raises: HubError and DataError, where that is so.
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


def tell_diverged(configs: Mapping[str, "Config"]) -> None:
    """Say of each adapter whose training diverged that it did."""
    from idat_zoo.results import DIVERGED

    for name, config in configs.items():
        if config.diverged:
            screen.note(f"{name}: {DIVERGED}")


def offer_weights(backbones: Iterable["Backbone"], *, yes: bool) -> None:
    """Have the weights here, or a person's consent to download them.

    Raises: DataError without it.
    """
    backbones = list(backbones)
    agreed = _agrees({}, _missing_weights(backbones), None, yes=yes)
    require_weights(backbones, agreed=agreed)


def require_weights(backbones: Iterable["Backbone"], *, agreed: bool) -> None:
    """Raises: DataError where weights would have to be downloaded and nobody agreed to that."""
    missing = _missing_weights(backbones)
    if missing and not agreed:
        raise DataError(
            f"weights that are not here: {', '.join(missing)}",
            hint="--yes downloads them from the Hub.",
        )


def tell_cached(places: Iterable["Reference"]) -> None:
    """Say of checkpoints on the Hub that nothing is asked of it."""
    from idat_zoo.checkpoint import CONFIG_FILE, TENSORS_FILE
    from idat_zoo.hub import HubReference, find_cached

    pinned = [one for one in places if isinstance(one, HubReference) and not one.asked]
    for place in pinned:
        if find_cached(place, (CONFIG_FILE, TENSORS_FILE)):
            screen.note(f"'{place}' is in the cache; the Hub is not asked")


def pull_asked(
    tasks: Iterable["Task"],
    *,
    registry: "Registry",
    source: str | None,
    data_dir: Path | None,
    yes: bool,
) -> list["Pulled"]:
    """Fetch the images of tasks that are asked for by name; those that are here stay.

    Raises: UsageError for tasks that nobody has, DataError without consent, HubError.
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
            hint="Tasks of mini are built in; sources.toml on a shelf of your own adds a source.",
        )
    if wanted and not _agrees(wanted, {}, data_dir, yes=yes):
        places = ", ".join(f"{one.place} (licence: {one.licence})" for one, _ in wanted.values())
        raise DataError(f"nothing was fetched from {places}.", hint="--yes fetches without asking.")
    fetched = {pulled.task: pulled for pulled in fetch(wanted, data_dir, alone=len(tasks) == 1)}
    here = [task for task in tasks if not suite_of(task).missing(task, data_dir)]
    return [fetched.get(task.id) or Pulled.before(task, data_dir) for task in here]


def fetch(wanted: "Wanted", data_dir: Path | None, *, alone: bool) -> list["Pulled"]:
    """Fetch tasks' images; unless all is for one `alone`, a task's fault is told and ends that one.

    Raises: HubError; DataError for a source that is no zip, or for the one task.
    """
    from idat_zoo.cli.progress import LiveProgress
    from idat_zoo.pulling import pull

    fetched = []
    for source, tasks in wanted.values():
        with LiveProgress() as progress:
            for outcome in pull(source, tasks, data_dir=data_dir, listener=progress):
                if not isinstance(outcome, DataError):
                    fetched.append(outcome)
                    told = f"{outcome.num_files:,} files, {screen.size(outcome.num_bytes)}"
                    screen.note(f"{outcome.task}: {told} in {outcome.folder}")
                elif alone:
                    raise outcome
                else:
                    screen.print_error(outcome)
    return fetched


def _missing_images(
    tasks: Iterable["Task"], registry: "Registry", data_dir: Path | None
) -> "Wanted":
    """The tasks whose lists are not here, by the name of the source that has them."""
    from idat_zoo.data.suites import suite_of

    wanted: Wanted = {}
    for task in {task.id: task for task in tasks}.values():
        source = registry.source_of(task)
        if source is not None and suite_of(task).missing(task, data_dir):
            wanted.setdefault(source.name, (source, []))[1].append(task)
    return wanted


def _missing_weights(backbones: Iterable["Backbone"]) -> dict[str, "Backbone"]:
    """The repositories of weights that are not here, each with its backbone."""
    from idat_zoo.backbones.pinned import missing_weights

    return {repo: one for one in backbones if (repo := missing_weights(one))}


def _agrees(
    wanted: "Wanted", weights: dict[str, "Backbone"], data_dir: Path | None, *, yes: bool
) -> bool:
    """Whether what is missing may be fetched, once it was told what that is."""
    if not wanted and not weights:
        return yes
    on_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    if not yes and not on_terminal:
        return False
    _tell(wanted, weights, data_dir)
    return yes or typer.confirm("Download?", err=True)


def _tell(wanted: "Wanted", weights: dict[str, "Backbone"], data_dir: Path | None) -> None:
    """What would be fetched, from where, under which licence, and to where."""
    from idat_zoo.backbones.pinned import weights_size
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
        size = weights_size(backbone)
        about = f"about {screen.size(size)}" if size else "size not known"
        screen.note(f"weights of {repo}, {about} (licence: {backbone.licence or 'not stated'})")
