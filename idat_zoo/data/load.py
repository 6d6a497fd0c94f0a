"""A task as tensors: uint8 images with their classes, from disk, from memory or built in."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from idat_zoo.data.arrays import Arrays
from idat_zoo.data.decode import Decoded, decode_files
from idat_zoo.data.listing import SHOWN, Listing, describe_classes, emptied_classes, refuse
from idat_zoo.data.lists import read_listing
from idat_zoo.data.on_disk import verify_command
from idat_zoo.data.reading import Listener, Reading
from idat_zoo.data.suites import suite_of
from idat_zoo.data.suites.base import Place
from idat_zoo.data.task_data import Split, TaskData
from idat_zoo.outside import SUITES_GROUP, warn_if_changed
from idat_zoo.recipe import Task


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
    """A task's splits as uint8 tensors [N, 3, img_size, img_size].

    `seed` selects the training list of a few-shot task; other tasks have one list. `arrays` holds
    the images of a task that is in memory.

    Raises: DataError with every fault, where the data is missing or not as the task declares it;
    UsageError for arrays with a task that has images of its own, or where the plugin that brings
    the task's suite is not here.
    """
    reading, listener = reading or Reading(), listener or Listener()
    if arrays is not None:
        arrays.check_is(task)
        return arrays.load(task, img_size, listener)
    suite = suite_of(task)
    warn_if_changed("suite", task.suite, task.plugin, group=SUITES_GROUP)
    if suite.place is Place.BUILT_IN:
        return suite.make(task, img_size)
    check = verify_command(suite.word(task), data_dir)
    faults: list[str] = []
    listing = read_listing(task, data_dir, faults, seed=seed, reading=reading)
    if faults:
        raise refuse(task.id, faults, check=check)
    skip = reading.skip_corrupt and suite.may_shrink
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
    unreadable = _unreadable_images(listing, decoded)
    left = _readable(listing, decoded)
    readable = {name for rows in left.splits.values() for name in rows.names}
    emptied = emptied_classes(listing, readable)
    if unreadable and not skip:
        hint = "--skip-corrupt goes on without them." if suite.may_shrink and not emptied else ""
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


def _unreadable_images(listing: Listing, decoded: Mapping[str, Decoded]) -> list[str]:
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
    """Sentences on what may make results on this data misleading."""
    if unreadable:
        count = "1 image" if len(unreadable) == 1 else f"{len(unreadable):,} images"
        yield f"left out, as unreadable: {count}: " + "; ".join(unreadable[:SHOWN])
    if data.test_in_training:
        yield (
            f"{data.test_in_training:,} of {len(data.test):,} test images have the same bytes as "
            "an image that is learnt from"
        )
    yield from describe_classes(listing, data.task.num_classes)
