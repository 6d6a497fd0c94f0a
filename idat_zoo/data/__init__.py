"""Tasks as tensors: uint8 images with labels and a fingerprint, from disk or built in."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from idat_zoo.data.arrays import Arrays, Data, read_arrays
from idat_zoo.data.builtin import load_builtin
from idat_zoo.data.decode import Decoded, decode_files
from idat_zoo.data.fewshot import read_fewshot
from idat_zoo.data.fgvc import read_fgvc
from idat_zoo.data.folder import describe_folder, read_folder
from idat_zoo.data.listing import (
    SHOWN,
    Listing,
    check_files,
    describe_classes,
    emptied_classes,
    refuse,
)
from idat_zoo.data.reading import Listener, Reading
from idat_zoo.data.task_data import Split, TaskData
from idat_zoo.data.vtab1k import read_vtab1k
from idat_zoo.errors import DataError
from idat_zoo.layouts import data_folder, how_to_get, missing_lists, verify_command
from idat_zoo.recipe import Task

__all__ = [
    "Arrays",
    "Data",
    "Reading",
    "Split",
    "TaskData",
    "describe_folder",
    "load_task",
    "read_arrays",
    "read_listing",
]


def load_task(
    task: Task,
    *,
    img_size: int,
    data_dir: Path | None = None,
    seed: int = 0,
    reading: Reading | None = None,
    listener: Listener | None = None,
    arrays: Arrays | None = None,
) -> TaskData:
    """A task's splits as uint8 tensors at a backbone's input size.

    `seed` chooses the list of a few-shot task; others have one list. `arrays` are those of a task
    that is not on disk.

    Raises: DataError where the data is missing or not as the task declares it, with all faults;
    UsageError for arrays of a task that has its own images.
    """
    reading, listener = reading or Reading(), listener or Listener()
    if arrays is not None:
        arrays.check_is(task)
        return arrays.load(task, img_size, listener)
    if task.suite == "mini":
        return load_builtin(task, img_size)
    check = verify_command("folder" if task.suite == "folder" else task.id, data_dir)
    faults: list[str] = []
    listing = read_listing(task, data_dir, faults, seed=seed, reading=reading)
    if faults:
        raise refuse(task.id, faults, check=check)
    skip = reading.skip_corrupt and task.may_shrink
    decoded = {
        split: decode_files(
            [listing.root / name for name in rows.names],
            size=img_size,
            what=f"{task.id} {split}",
            reading=reading,
            listener=listener,
            may_stream=split == "test",
            skip_unreadable=skip,
        )
        for split, rows in listing.splits.items()
    }
    unreadable = unreadable_images(listing, decoded)
    left = _readable(listing, decoded)
    readable = {name for rows in left.splits.values() for name in rows.names}
    emptied = emptied_classes(listing, readable)
    if unreadable and not skip:
        hint = "--skip-corrupt goes on without them." if task.may_shrink and not emptied else ""
        raise refuse(task.id, [*emptied, *unreadable], hint=hint, check=check)
    if emptied:
        raise refuse(task.id, emptied, hint="Convert its images, or move its folder away.")
    data = _assemble(task, listing, decoded)
    empty = [split for split in ("train", "test") if not decoded[split].places]
    if empty:
        raise refuse(task.id, [f"no images for {split}" for split in empty])
    for note in (*listing.notes, *_describe(data, left, unreadable)):
        listener.note(f"{task.id}: {note}")
    return data


def unreadable_images(listing: Listing, decoded: Mapping[str, Decoded]) -> list[str]:
    """One line for each image that cannot be decoded."""
    return [
        f"{rows.source}: {rows.names[place]} {reason}"
        for split, rows in listing.splits.items()
        for place, reason in decoded[split].unreadable.items()
    ]


def _assemble(task: Task, listing: Listing, decoded: Mapping[str, Decoded]) -> TaskData:
    splits = {
        split: Split(
            images=found.images,
            targets=torch.tensor([rows.targets[i] for i in found.places], dtype=torch.int64),
            index=torch.tensor(found.places, dtype=torch.int64),
            pixels_sha256=found.pixels_sha256,
        )
        for split, rows in listing.splits.items()
        for found in [decoded[split]]
    }
    learnt = {*decoded["train"].file_hashes, *decoded["val"].file_hashes}
    return TaskData(
        task=task.with_names(listing.class_names),
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        listing=listing,
        unreadable=sum(len(found.unreadable) for found in decoded.values()),
        test_in_training=sum(sha256 in learnt for sha256 in decoded["test"].file_hashes),
    )


def _readable(listing: Listing, decoded: Mapping[str, Decoded]) -> Listing:
    """The lists without the images that cannot be decoded."""
    splits = {
        split: replace(
            rows,
            names=[rows.names[i] for i in decoded[split].places],
            targets=[rows.targets[i] for i in decoded[split].places],
        )
        for split, rows in listing.splits.items()
    }
    return replace(listing, splits=splits)


def _describe(data: TaskData, listing: Listing, unreadable: Sequence[str]) -> Iterator[str]:
    """What a person should know of the data before believing a number."""
    if unreadable:
        count = "1 image" if len(unreadable) == 1 else f"{len(unreadable):,} images"
        yield f"left out, as unreadable: {count}: " + "; ".join(unreadable[:SHOWN])
    if data.test_in_training:
        yield (
            f"{data.test_in_training:,} of {len(data.test):,} test images have the same bytes as "
            "an image that is learnt from"
        )
    yield from describe_classes(listing, data.task.num_classes)


def read_listing(
    task: Task,
    data_dir: Path | None,
    faults: list[str],
    *,
    seed: int = 0,
    reading: Reading | None = None,
) -> Listing:
    """A task's lists from disk, with every file's place checked; what is wrong goes to `faults`.

    Raises: DataError where the lists are not there, or a folder is not the task's.
    """
    absent = missing_lists(task, data_dir, seed=seed)
    if absent:
        raise DataError(f"missing: {absent}", hint=f"{how_to_get(task)}.")
    place = data_folder(data_dir)
    if task.suite == "folder":
        return read_folder(place, task, reading)
    if task.suite == "fgvc":
        listing = read_fgvc(task, place, faults)
    elif task.suite == "fewshot":
        listing = read_fewshot(task, place, faults, seed=seed)
    else:
        listing = read_vtab1k(task, place, faults)
    check_files(listing, faults)
    return listing
