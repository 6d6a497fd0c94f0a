"""The download of tasks' images from the Hub to the data folder, one complete folder per task.

    <data>/.pull/<folder>/      a download in progress, which a later call continues
    <data>/<folder>/            a complete download, checked against the task's description
        source.json             the source and the commit that it was downloaded from

A task's files are read from the zip of its source by HTTP range requests; the rest of the zip is
not downloaded.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from idat_zoo import files
from idat_zoo.data.archive import find_members, open_archive, unpack
from idat_zoo.data.listing import refuse
from idat_zoo.data.lists import read_listing
from idat_zoo.data.on_disk import SOURCE_FILE, data_folder
from idat_zoo.data.reading import Listener
from idat_zoo.data.suites import suite_of
from idat_zoo.errors import DataError, RunFolderError, way_to_write
from idat_zoo.hub.remote_file import open_remote
from idat_zoo.recipe import Task
from idat_zoo.sources import DataSource

PULL_FOLDER = ".pull"


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """A task whose images are in the data folder. `num_files` is 0 if nothing was downloaded."""

    task: str
    folder: Path
    num_files: int = 0
    num_bytes: int = 0

    @classmethod
    def before(cls, task: Task, data_dir: Path | None) -> "Pulled":
        """A task whose images were there before, so that nothing was downloaded."""
        return cls(task=task.id, folder=suite_of(task).folder(task, data_dir))


def pull(
    source: DataSource,
    tasks: Iterable[Task],
    *,
    data_dir: Path | None = None,
    listener: Listener | None = None,
) -> Iterator[Pulled | DataError]:
    """Download the folders of tasks one by one, as the iterator is advanced.

    A folder that is complete is not downloaded again. If a task fails, its DataError is yielded in
    its place: an incomplete folder exists already, the disk is full, or the images are not those
    that the task describes. A folder appears only when it is complete; a later call continues a
    download that was interrupted.

    Raises: HubError; DataError for a source that holds no zip.
    """
    listener = listener or Listener()
    opened: _OpenSource | None = None
    for task in tasks:
        if suite_of(task).missing(task, data_dir):
            opened = opened or _open(source)
            try:
                yield _pull_task(opened, task, data_dir, listener)
            except DataError as error:
                yield error
        else:
            yield Pulled.before(task, data_dir)


@dataclass(frozen=True, kw_only=True)
class _OpenSource:
    """A source of images at a fixed commit, with its open zip archive."""

    source: DataSource
    commit: str
    archive: ZipFile


def _open(source: DataSource) -> _OpenSource:
    remote = open_remote(source.repo, source.revision, source.file)
    archive = open_archive(remote.stream, source.place)
    return _OpenSource(source=source, commit=remote.commit, archive=archive)


def _pull_task(
    opened: _OpenSource, task: Task, data_dir: Path | None, listener: Listener
) -> Pulled:
    suite, beside = suite_of(task), data_folder(data_dir) / PULL_FOLDER
    folder = suite.folder(task, data_dir)
    waiting = "another process is fetching the same images; waiting for it"
    try:
        beside.mkdir(parents=True, exist_ok=True)
        with files.alone(beside / f"{task.folder}.lock", lambda: listener.note(waiting)):
            absent = suite.missing(task, data_dir)
            if not absent:  # another process was faster
                return Pulled.before(task, data_dir)
            if folder.exists():
                raise DataError(
                    f"'{folder}' is there, but not complete: {absent}",
                    hint="Remove it, or choose another --data-dir.",
                )
            members = find_members(opened.archive, task, opened.source.file)
            unpack(opened.archive, members, beside / task.folder, what=task.id, listener=listener)
            _check(task, beside)
            _write_source(opened, beside / task.folder)
            (beside / task.folder).rename(folder)
    except (OSError, RunFolderError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        assert isinstance(cause, OSError)  # `files` raises RunFolderError from an OSError
        raise DataError(
            f"cannot write below '{beside}': {cause.strerror or cause}",
            hint=way_to_write(cause, other="another --data-dir"),
        ) from None
    return Pulled(
        task=task.id,
        folder=folder,
        num_files=len(members),
        num_bytes=sum(entry.file_size for entry in members.values()),
    )


def _check(task: Task, beside: Path) -> None:
    """Check the length of every list, and that all images in it exist. Raises: DataError."""
    faults: list[str] = []
    read_listing(task, beside, faults)
    if faults:
        raise refuse(task.id, faults, hint=f"What was fetched is in '{beside}'.")


def _write_source(opened: _OpenSource, folder: Path) -> None:
    source = {
        "source": opened.source.place,
        "commit": opened.commit,
        "licence": opened.source.licence,
    }
    files.write_whole(folder / SOURCE_FILE, files.dump_json(source))
