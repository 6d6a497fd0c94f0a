"""Other people's images: `--task folder --data-dir PLACE`.

PLACE is one of

    DIR/<class>/…/<image>                       split here: a fifth of each class is test
    DIR/train/<class>/…  val/…  test/…          split there; a missing val is a tenth of train
    FILE.csv                                    columns path, label and, if split there, split

A split that is made here depends on the images' names alone: it is the same on every machine, and
an image that is added later moves few others. Each run keeps its split as `split.csv`, which is
such a CSV itself.
"""

import csv
import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from idat_zoo.data.decode import hash_files
from idat_zoo.data.image_file import SUFFIXES
from idat_zoo.data.listing import SPLITS, Listing, Rows, check_files, refuse, shown
from idat_zoo.data.reading import Reading
from idat_zoo.recipe import Task

FOLDER = "folder"
SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
VAL_PERCENT, TEST_PERCENT = 10, 20
COLUMNS = ("path", "label", "split")


@dataclass(frozen=True)
class _Image:
    """An image's name below the folder, its class's name, and its split, '' if none is given."""

    name: str
    label: str
    split: str


def describe_folder(place: Path, reading: Reading) -> Task:
    """The task that a folder of images, or a CSV over one, is.

    Its id holds 8 digits of a hash over names, classes, splits and every file's bytes.

    Raises: DataError with every fault of the folder.
    """
    listing = read_folder(place)
    return Task(
        id=_identify(listing, reading),
        title=place.resolve().name,
        suite="folder",
        num_classes=len(listing.class_names),
        num_train=(),
        num_val=(),
        num_test=(),
        class_names=listing.class_names,
    )


def read_folder(place: Path, task: Task | None = None, reading: Reading | None = None) -> Listing:
    """A folder's lists. With a `task`, the folder must still be the one it describes.

    Raises: DataError with every fault.
    """
    faults: list[str] = []
    listing = list_folder(place, faults)
    if faults:
        raise refuse(FOLDER, faults)
    if task is not None:
        found = _identify(listing, reading or Reading())
        if found != task.id:
            raise refuse(
                task.id, [f"'{place}' is another folder of images, or has changed: it is {found}"]
            )
    return listing


def list_folder(place: Path, faults: list[str]) -> Listing:
    """A folder's lists as they are; what is wrong with them is added to `faults`."""
    notes: list[str] = []
    if place.suffix.lower() == ".csv":
        root, images = place.parent, _read_csv(place, faults)
    else:
        root, images = place, _walk(place, faults, notes)
    if not images and not faults:
        faults.append(f"no images in '{place}'; expected folders of images, one for each class")
    images = _split(images, notes)
    names = tuple(sorted({image.label for image in images}))
    if images and len(names) < 2:
        faults.append(f"all images are of one class, {names[0]!r}; expected two classes or more")
    number = {name: i for i, name in enumerate(names)}
    splits = {
        split: Rows(
            source=split,
            names=[image.name for image in images if image.split == split],
            targets=[number[image.label] for image in images if image.split == split],
        )
        for split in SPLITS
    }
    listing = Listing(root=root, splits=splits, class_names=names, notes=notes)
    check_files(listing, faults)
    if images:
        faults += [f"no images for {split}" for split in ("train", "test") if not splits[split]]
    return listing


def split_csv(listing: Listing) -> bytes:
    """The lists as a CSV that `--data-dir` reads, if it lies in the images' folder."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for split, rows in listing.splits.items():
        for name, target in zip(rows.names, rows.targets, strict=True):
            writer.writerow([name, listing.class_names[target], split])
    return text.getvalue().encode()


def _identify(listing: Listing, reading: Reading) -> str:
    names = [name for rows in listing.splits.values() for name in rows.names]
    hashes, unreadable = hash_files([listing.root / name for name in names], reading)
    if unreadable:
        raise refuse(FOLDER, [f"{names[i]}: {reason}" for i, reason in unreadable.items()])
    return folder_id(listing, hashes)


def folder_id(listing: Listing, hashes: Sequence[str]) -> str:
    """The task's id, from the SHA-256 of each file in the lists' order."""
    digest = hashlib.sha256(split_csv(listing))
    digest.update("".join(hashes).encode())
    return f"{FOLDER}-{digest.hexdigest()[:8]}"


def _walk(place: Path, faults: list[str], notes: list[str]) -> list[_Image]:
    """Images below class folders, which may lie below folders named for splits."""
    if not place.is_dir():
        faults.append(f"'{place}' is not a folder and not a .csv file")
        return []
    others: list[str] = []
    top, loose = _contents(place, faults)
    given = {name: SPLIT_FOLDERS[name.lower()] for name in top if name.lower() in SPLIT_FOLDERS}
    images = []
    if "train" in given.values():
        left = [name for name in top if name not in given]
        if left:
            notes.append(f"left out: {', '.join(left)} beside the folders of the splits")
        for folder, split in given.items():
            labels, found = _contents(place / folder, faults)
            loose += [f"{folder}/{name}" for name in found]
            for label in labels:
                names = _image_names(place, f"{folder}/{label}", faults, others)
                images += [_Image(name, label, split) for name in names]
    else:
        for label in top:
            names = _image_names(place, label, faults, others)
            images += [_Image(name, label, "") for name in names]
    loose = [name for name in loose if _is_image(name)]
    if loose:
        notes.append(f"left out: {len(loose):,} images in no class's folder, as {loose[0]}")
    if others:
        notes.append(f"left out: {len(others):,} files that are no images by name, as {others[0]}")
    return images


def _contents(folder: Path, faults: list[str]) -> tuple[list[str], list[str]]:
    """The names of a folder's subfolders and of its files, without hidden ones, in order."""
    subfolders: list[str] = []
    others: list[str] = []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        faults.append(f"{folder}: cannot be read: {error.strerror}")
        return subfolders, others
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            others.append(entry.name)
        elif entry.is_symlink():
            faults.append(f"{entry.path}: is a link to a folder; links are not followed")
        else:
            subfolders.append(entry.name)
    return subfolders, others


def _image_names(root: Path, folder: str, faults: list[str], others: list[str]) -> Iterator[str]:
    """Names below `root` of the images in a folder and its subfolders, in order."""
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        subfolders, names = _contents(root / here, faults)
        waiting += [f"{here}/{name}" for name in reversed(subfolders)]
        for name in names:
            if _is_image(name):
                yield f"{here}/{name}"
            else:
                others.append(f"{here}/{name}")


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def _read_csv(path: Path, faults: list[str]) -> list[_Image]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path.name}: cannot be read: {error}")
        return []
    reader = csv.DictReader(io.StringIO(text, newline=""))
    images: list[_Image] = []
    try:
        header = tuple(reader.fieldnames or ())
        if header not in (COLUMNS, COLUMNS[:2]):
            faults.append(
                f"{path.name}: expected a first line 'path,label' or 'path,label,split', got "
                f"{shown(','.join(header))}"
            )
            return images
        for row in reader:
            image = _Image(row["path"] or "", row["label"] or "", row.get("split") or "")
            split_there = len(header) < len(COLUMNS) or image.split in SPLITS
            if None in row or not image.name or not image.label or not split_there:
                expected = ",".join(header) + ("" if split_there else " (train, val or test)")
                faults.append(f"{path.name} line {reader.line_num}: expected {expected}")
            else:
                images.append(image)
    except csv.Error as error:
        faults.append(f"{path.name} line {reader.reader.line_num}: {error}")
    return images


def _split(images: Sequence[_Image], notes: list[str]) -> list[_Image]:
    """Every image with a split: the given ones, and those that are made here."""
    given = {image.split for image in images}
    if given <= {""}:
        notes.append(
            f"split here: {TEST_PERCENT} % of each class for test, {VAL_PERCENT} % of the rest "
            "for val"
        )
        images = _cut(images, "test", TEST_PERCENT)
        images = _cut(images, "val", VAL_PERCENT)
    elif "test" not in given and "val" in given:
        notes.append("val is used as test, as there is no test")
        images = [_Image(i.name, i.label, "test" if i.split == "val" else i.split) for i in images]
        given = {"train", "test"}
    if "val" not in given and "train" in given:
        notes.append(f"{VAL_PERCENT} % of each class of train are val")
        others = [image for image in images if image.split != "train"]
        learnt = [_Image(i.name, i.label, "") for i in images if i.split == "train"]
        images = _cut(learnt, "val", VAL_PERCENT) + others
    return [_Image(i.name, i.label, i.split or "train") for i in images]


def _cut(images: Sequence[_Image], split: str, percent: int) -> list[_Image]:
    """Some of each class's images without a split go to one, if two or more are there."""
    classes: dict[str, list[_Image]] = defaultdict(list)
    for image in images:
        if not image.split:
            classes[image.label].append(image)
    chosen: set[str] = set()
    for own in classes.values():
        count = max(1, round(len(own) * percent / 100)) if len(own) > 1 else 0
        chosen |= {image.name for image in sorted(own, key=_drawn)[:count]}
    return [_Image(i.name, i.label, split) if i.name in chosen else i for i in images]


def _drawn(image: _Image) -> bytes:
    # a name that is no Unicode is told later
    return hashlib.sha256(f"split/{image.name}".encode(errors="surrogatepass")).digest()
