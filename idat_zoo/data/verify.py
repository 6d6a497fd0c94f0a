"""The check of all of a task's data: its lists, every image file, and its cached pixels."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from idat_zoo.data.cache import Cache
from idat_zoo.data.digests import digest_images, examine_files
from idat_zoo.data.folder import FOLDER, folder_id, list_folder
from idat_zoo.data.listing import Listing, count_classes, describe_classes, emptied_classes, locate
from idat_zoo.data.lists import read_listing
from idat_zoo.data.reading import Listener, Reading
from idat_zoo.data.suites import suite_of
from idat_zoo.data.suites.base import Place
from idat_zoo.errors import DataError
from idat_zoo.recipe import Task
from idat_zoo.values import Frozen

BUILT_IN = "built in"


class Finding(Frozen):
    """The outcome of a check: what there is, and every fault.

    `lists` has the number of images of each list, `images` the number of files that were opened.
    `test_in_training` names the test images with the same bytes as a training image. `files_sha256`
    is over the lists' paths and classes and every file's SHA-256, so it is equal for equal data.
    `cached` is the number of lists whose pixels the cache has. `classes` has the number of images
    by class and split, where classes have names.
    """

    task: str
    place: str
    lists: dict[str, int]
    images: int
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    test_in_training: tuple[str, ...]
    files_sha256: str
    cached: int
    classes: dict[str, dict[str, int]]


def verify_task(
    task: Task, data_dir: Path | None, *, reading: Reading, listener: Listener
) -> Finding:
    """Check a shelf's task, with the lists of all seeds that there are.

    Faults of the data are in the finding and are not raised. A built-in task has nothing to check.
    """
    faults: list[str] = []
    listings: list[Listing] = []
    place, seeds = BUILT_IN, list[int]()
    suite = suite_of(task)
    if suite.place is not Place.BUILT_IN:
        place = str(suite.folder(task, data_dir))
        seeds = suite.drawn_seeds(task, data_dir) or [0]
    for seed in seeds:
        try:
            listings.append(read_listing(task, data_dir, faults, seed=seed))
        except DataError as error:
            faults += error.faults
    files = _examine(listings, task.id, reading, listener)
    return _conclude(task.id, place, listings, files, faults, task.num_classes, reading)


def verify_folder(place: Path, *, reading: Reading, listener: Listener) -> Finding:
    """Check a user's own images, as `--task folder` reads them.

    The finding's task is the id that they are trained under, or `folder` where they have faults.
    """
    faults: list[str] = []
    listing = list_folder(place, faults)
    files = _examine([listing], FOLDER, reading, listener)
    task_id = FOLDER
    if not faults and all(files.hashes.values()):
        names = [name for rows in listing.splits.values() for name in rows.names]
        task_id = folder_id(listing, [files.hashes[name] for name in names])
    classes = len(listing.class_names)
    faults += emptied_classes(listing, files.hashes.keys() - files.unreadable.keys())
    return _conclude(task_id, str(place), [listing], files, faults, classes, reading)


@dataclass(frozen=True, kw_only=True)
class _Files:
    """The SHA-256 of each file by path, '' where it cannot be read; reasons for unreadable ones."""

    hashes: dict[str, str]
    unreadable: dict[str, str]


def _examine(
    listings: Sequence[Listing], what: str, reading: Reading, listener: Listener
) -> _Files:
    """Open and decode every listed file that is inside its folder, each once."""
    folders: dict[str, str] = {}
    paths: dict[str, Path] = {}
    for listing in listings:
        root = os.path.realpath(listing.root)
        for rows in listing.splits.values():
            found = ((name, locate(root, name, folders)[0]) for name in rows.names)
            paths |= {name: Path(path) for name, path in found if path}
    names = list(paths)
    hashes, unreadable = examine_files(
        list(paths.values()), reading, lambda done: listener.decoding(what, done, len(names))
    )
    return _Files(
        hashes=dict(zip(names, hashes, strict=True)),
        unreadable={names[i]: reason for i, reason in unreadable.items()},
    )


def _conclude(
    task_id: str,
    place: str,
    listings: Sequence[Listing],
    files: _Files,
    faults: list[str],
    num_classes: int,
    reading: Reading,
) -> Finding:
    lists = {
        rows.source: rows for listing in listings for rows in listing.splits.values() if len(rows)
    }
    faults += [
        f"{rows.source}: {name} {files.unreadable[name]}"
        for rows in lists.values()
        for name in rows.names
        if name in files.unreadable
    ]
    cached, spoilt = _check_cache(task_id, reading)
    notes = [
        note
        for listing in listings
        for note in (*listing.notes, *describe_classes(listing, num_classes))
    ]
    digest = hashlib.sha256()
    for rows in lists.values():
        for name, target in zip(rows.names, rows.targets, strict=True):
            line = f"{rows.source} {target} {files.hashes.get(name, '')} {name}\n"
            digest.update(line.encode(errors="backslashreplace"))
    return Finding(
        task=task_id,
        place=place,
        lists={source: len(rows) for source, rows in lists.items()},
        images=len(files.hashes),
        faults=tuple(dict.fromkeys([*faults, *spoilt])),
        notes=tuple(dict.fromkeys(notes)),
        test_in_training=tuple(dict.fromkeys(_seen_in_training(listings, files))),
        files_sha256=digest.hexdigest() if lists else "",
        cached=cached,
        classes={name: counts for one in listings for name, counts in count_classes(one).items()},
    )


def _seen_in_training(listings: Sequence[Listing], files: _Files) -> Iterator[str]:
    for listing in listings:
        learnt = {
            files.hashes.get(name)
            for split in ("train", "val")
            for name in listing.splits[split].names
        }
        for name in listing.splits["test"].names:
            if files.hashes.get(name) and files.hashes[name] in learnt:
                yield name


def _check_cache(task_id: str, reading: Reading) -> tuple[int, list[str]]:
    """The number of a task's lists in the cache, and faults for those whose pixels changed."""
    cache, faults = Cache(reading.cache), []
    held = {k: e for k, e in cache.entries().items() if e.task == task_id and e.kept}
    for key, entry in held.items():
        try:
            whole = digest_images(cache.open(key, entry)) == entry.pixels_sha256
        except FileNotFoundError:  # cleaned by another process
            continue
        if not whole:
            faults.append(
                f"cache: the pixels of {entry.what} at {entry.size} x {entry.size} are not those "
                f"that were decoded: `idat data cache --clean {task_id}` removes them"
            )
    return len(held), faults
