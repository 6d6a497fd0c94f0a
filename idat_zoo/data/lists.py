"""A task's lists of images, read from disk by its suite, with every listed file checked."""

from pathlib import Path

from idat_zoo.data.listing import Listing, check_files, describe_broken, refuse
from idat_zoo.data.on_disk import data_folder
from idat_zoo.data.reading import Reading
from idat_zoo.data.suites import suite_of
from idat_zoo.errors import DataError
from idat_zoo.recipe import Task


def read_listing(
    task: Task,
    data_dir: Path | None,
    faults: list[str],
    *,
    seed: int = 0,
    reading: Reading | None = None,
) -> Listing:
    """The lists of a task; every fault of them or of a listed file's path goes to `faults`.

    Raises: DataError where the lists are not there, or a folder is not the task's.
    """
    suite = suite_of(task)
    absent = suite.missing(task, data_dir, seed=seed)
    if absent:
        raise DataError(f"missing: {absent}", hint=f"{suite.how_to_get(task)}.")
    listing = suite.read(task, data_folder(data_dir), faults, seed=seed, reading=reading)
    broken = describe_broken(listing, task.num_classes)
    if broken and not faults:  # else the suite itself has said what is wrong
        raise refuse(task.id, broken)
    check_files(listing, faults)
    return listing
