"""A task's lists of images: paths below one folder, each with its class, and checks of them.

Every fault is one line of text and all are collected, so that they are shown together. No image is
opened before its list has been checked.
"""

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from idat_zoo.errors import DataError
from idat_zoo.recipe import Task

SPLITS = ("train", "val", "test")
SHOWN = 10
MOST_SHOWN = 100  # characters of a line
IMBALANCED = 10  # times
TINY = 5  # images


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One list: the file it was read from, the images' paths below the folder, their classes."""

    source: str
    names: Sequence[str]
    targets: Sequence[int]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The lists of a task's splits (train, val, test), all below one folder.

    `class_names` is empty where the source has no names. `notes` are sentences for the user.
    """

    root: Path
    splits: dict[str, Rows]
    class_names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def refuse(task_id: str, faults: Sequence[str], *, hint: str = "", check: str = "") -> DataError:
    """The error for faulty data: it shows ten faults and names the command `check` for all."""
    rest = ""
    if len(faults) > SHOWN:
        rest = f"\n  … and {len(faults) - SHOWN} more"
        hint = f"{hint} `{check}` lists them all.".strip() if check else hint
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return DataError(
        f"task '{task_id}': {count} in its data:\n  " + "\n  ".join(faults[:SHOWN]) + rest,
        hint=hint,
        faults=faults,
    )


def read_lines(path: Path, faults: list[str]) -> list[str] | None:
    """A text file's lines with any line ending; None, and a fault, where it cannot be read."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path.name}: cannot be read: {error}")
        return None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def read_pairs(
    path: Path,
    task: Task,
    faults: list[str],
    *,
    expected: Sequence[int] = (),
    below: str = "",
) -> Rows:
    """A list file with `path class` in each line.

    Paths may hold spaces: the class is the last word. `expected` has every right number of lines;
    empty, none is checked. `below` is a folder that is put before each path.
    """
    names: list[str] = []
    targets: list[int] = []
    lines = read_lines(path, faults)
    if lines is None:
        return Rows(source=path.name, names=names, targets=targets)
    check_count(path.name, len(lines), expected, faults)
    for number, line in enumerate(lines, start=1):
        name, _, label = line.rstrip().rpartition(" ")
        if not name or not (label.isascii() and label.isdecimal() and len(label) < 10):
            faults.append(f"{path.name} line {number}: expected 'path class', got {shown(line)}")
        elif int(label) >= task.num_classes:
            faults.append(
                f"{path.name} line {number}: expected a class below {task.num_classes}, "
                f"got {shown(line)}"
            )
        else:
            names.append(f"{below}/{name}" if below else name)
            targets.append(int(label))
    return Rows(source=path.name, names=names, targets=targets)


def shown(line: str) -> str:
    """A line as messages quote it; of a very long line, the beginning."""
    return repr(line if len(line) <= MOST_SHOWN else line[:MOST_SHOWN] + "…")


def check_count(source: str, count: int, expected: Sequence[int], faults: list[str]) -> None:
    """Add a fault where `count` is not one of the expected numbers; none expected, none checked."""
    if expected and count not in expected:
        sizes = " or ".join(f"{size:,}" for size in expected)
        faults.append(f"{source}: {count:,} images, expected {sizes}")


def check_files(listing: Listing, faults: list[str]) -> None:
    """Add a fault for each image that is not a file inside the folder, or is listed twice."""
    root = os.path.realpath(listing.root)
    folders: dict[str, str] = {}
    owners: dict[str, str] = {}
    for rows in listing.splits.values():
        for name in rows.names:
            path, fault = locate(root, name, folders)
            if not fault and path in owners:
                fault = f"is listed twice, there and in {owners[path]}"
            if fault:
                faults.append(f"{rows.source}: {name}: {fault}")
            else:
                owners[path] = rows.source


def locate(root: str, name: str, folders: dict[str, str]) -> tuple[str, str]:
    """An image's real path and '', or '' and the reason why the file may not be read.

    `root` is a real path. `folders` caches the real paths of the folders below it.
    """
    folder, _, file = name.rpartition("/")
    if not is_unicode(name):
        return "", "has a name that is no Unicode text"
    if "\0" in name or not file or name.startswith("/") or ".." in name.split("/"):
        return "", "is not a path inside the task's folder"
    if folder not in folders:
        folders[folder] = os.path.realpath(f"{root}/{folder}")
    path = f"{folders[folder]}/{file}"
    try:
        found = Path(path).lstat()
        if stat.S_ISLNK(found.st_mode):
            path = os.path.realpath(path)
            found = Path(path).stat()
    except OSError as error:
        return "", f"cannot be read: {error.strerror}"
    if not path.startswith(root + os.sep):
        return "", "leaves the task's folder by a link"
    if not stat.S_ISREG(found.st_mode):
        return "", "is not a file"
    return path, ""


def is_unicode(name: str) -> bool:
    """Whether a name can be encoded: file names may hold any bytes, JSON lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def describe_broken(listing: object, num_classes: int) -> list[str]:
    """The faults in the form of a suite's lists; the suites of plugins may return anything."""
    if not isinstance(listing, Listing):
        return [f"expected a Listing (got {listing!r})"]
    faults = [f"the split {split!r} is missing" for split in SPLITS if split not in listing.splits]
    for split, rows in listing.splits.items():
        if len(rows.names) != len(rows.targets):
            faults.append(f"{split}: {len(rows.names)} images with {len(rows.targets)} classes")
        wrong = [
            target
            for target in rows.targets
            if not (isinstance(target, int) and 0 <= target < num_classes)
        ]
        if wrong:
            faults.append(
                f"{split}: classes are whole numbers from 0 to {num_classes - 1} (got "
                f"{', '.join(map(repr, wrong[:SHOWN]))})"
            )
    if listing.class_names and len(listing.class_names) != num_classes:
        faults.append(f"{len(listing.class_names)} class names for {num_classes} classes")
    return faults


def describe_classes(listing: Listing, num_classes: int) -> Iterator[str]:
    """Sentences on classes without images, with few images, or of very different sizes."""
    counts = Counter(listing.splits["train"].targets)
    counts.update(listing.splits["val"].targets)
    if not counts:
        return
    yield from _tell_absent(listing, counts, num_classes, "training")
    if listing.class_names:
        tested = Counter(listing.splits["test"].targets)
        yield from _tell_absent(listing, tested, num_classes, "test")
    largest, smallest = counts.most_common(1)[0], min(counts.items(), key=lambda item: item[1])
    if largest[1] >= IMBALANCED * smallest[1]:
        yield (
            f"classes are unlike in size: {_class_name(listing, largest[0])} has {largest[1]:,} "
            f"training images, {_class_name(listing, smallest[0])} has {smallest[1]:,}"
        )
    tiny = [number for number, count in counts.items() if count < TINY]
    if tiny and listing.class_names:
        named = _class_list(listing, sorted(tiny))
        yield f"{len(tiny)} classes have fewer than {TINY} training images: {named}"


def count_classes(listing: Listing) -> dict[str, dict[str, int]]:
    """Class name -> split -> number of images; empty where classes have no names."""
    counts = {split: Counter(rows.targets) for split, rows in listing.splits.items()}
    return {
        name: {split: counts[split][number] for split in SPLITS}
        for number, name in enumerate(listing.class_names)
    }


def emptied_classes(listing: Listing, readable: Collection[str]) -> list[str]:
    """One line for each named class that has training images of which none can be read."""
    counts, left = Counter[int](), Counter[int]()
    for split in ("train", "val"):
        rows = listing.splits[split]
        counts.update(rows.targets)
        left.update(t for n, t in zip(rows.names, rows.targets, strict=True) if n in readable)
    return [
        f"class {listing.class_names[number]!r}: none of its {count:,} training images can be read"
        for number, count in sorted(counts.items())
        if listing.class_names and not left[number]
    ]


def _tell_absent(
    listing: Listing, counts: Counter[int], num_classes: int, what: str
) -> Iterator[str]:
    absent = [number for number in range(num_classes) if number not in counts]
    if absent:
        named = f": {_class_list(listing, absent)}" if listing.class_names else ""
        yield f"{len(absent)} of {num_classes} classes have no {what} image{named}"


def _class_list(listing: Listing, numbers: Sequence[int]) -> str:
    named = ", ".join(_class_name(listing, number) for number in numbers[:SHOWN])
    return named + (", …" if len(numbers) > SHOWN else "")


def _class_name(listing: Listing, number: int) -> str:
    return repr(listing.class_names[number]) if listing.class_names else f"class {number}"
