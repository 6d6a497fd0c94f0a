"""The lists of a user's own images on disk: `--task folder --data-dir PLACE`.

PLACE is one of

    DIR/<class>/…/<image>                       split here: a fifth of each class is test
    DIR/train/<class>/…  val/…  test/…          already split; a missing val is a tenth of train
    FILE.csv                                    columns path, label and, if already split, split

`splits.py` says which folder names mean a split. Classes are in natural order. No class is dropped
or doubled silently: a class folder without images is a fault, and so are two class names that are
likely one class.

A split that is made here depends on the images' names alone. It is the same on every machine, and
an image that is added later moves few others to another split. Each run keeps its split as
`split.csv`, which is itself a CSV file of this form.
"""

import csv
import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from idat_zoo.data.class_names import like_names, natural_key, tell_apart
from idat_zoo.data.digests import hash_files
from idat_zoo.data.listing import SPLITS, Listing, Rows, check_files, refuse, shown
from idat_zoo.data.on_disk import verify_command
from idat_zoo.data.reading import Reading
from idat_zoo.data.splits import recognise, split_of
from idat_zoo.data.walk import Folder, walk
from idat_zoo.recipe import Task

FOLDER = "folder"
VAL_PERCENT, TEST_PERCENT = 10, 20
COLUMNS = ("path", "label", "split")


@dataclass(frozen=True)
class _Image:
    """An image's path below the folder, its class's name, and its split; '' if not yet split."""

    name: str
    label: str
    split: str


def describe_folder(place: Path, reading: Reading) -> Task:
    """The task that a folder of images, or a CSV file of them, makes.

    Its id ends in 8 digits of a hash over paths, classes, splits and every file's bytes.

    Raises: DataError with every fault of the folder.
    """
    listing = read_folder(place)
    return Task(
        id=_identify(listing, place, reading),
        title=place.resolve().name,
        suite=FOLDER,
        num_classes=len(listing.class_names),
        num_train=(),
        num_val=(),
        num_test=(),
        class_names=listing.class_names,
    )


def read_folder(place: Path, task: Task | None = None, reading: Reading | None = None) -> Listing:
    """A folder's lists. With a `task`, the folder must be the one that the task was made of.

    Raises: DataError with every fault, or for another or a changed folder.
    """
    faults: list[str] = []
    listing = list_folder(place, faults)
    if faults:
        raise refuse(FOLDER, faults, check=verify_command(FOLDER, place))
    if task is None:
        return listing
    if set(task.class_names) == set(listing.class_names):
        listing = _in_order(listing, task.class_names)
    found = _identify(listing, place, reading or Reading())
    if found != task.id:
        raise refuse(
            task.id,
            [f"'{place}' is another folder of images, or has changed: it is {found}"],
            hint="A run's own split.csv, copied into the folder, is a --data-dir that names the "
            "run's images alone.",
        )
    return listing


def _in_order(listing: Listing, class_names: tuple[str, ...]) -> Listing:
    """The same lists with classes in a given order, since runs keep the order of their recipe."""
    number = {name: i for i, name in enumerate(class_names)}
    renumbered = [number[name] for name in listing.class_names]
    splits = {
        split: replace(rows, targets=[renumbered[target] for target in rows.targets])
        for split, rows in listing.splits.items()
    }
    return replace(listing, splits=splits, class_names=class_names)


def list_folder(place: Path, faults: list[str]) -> Listing:
    """A folder's lists; every fault of them is appended to `faults`."""
    notes: list[str] = []
    if place.suffix.lower() == ".csv":
        root, images = place.parent, _read_csv(place, faults)
    else:
        root, images = place, _read_folders(place, faults, notes)
    _check_likeness(images, faults, notes)
    images = _split(images, notes) if images else images
    names = tuple(sorted({image.label for image in images}, key=natural_key))
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
    """The lists as a CSV file, which `--data-dir` can name if it is in the images' folder."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for split, rows in listing.splits.items():
        for name, target in zip(rows.names, rows.targets, strict=True):
            writer.writerow([name, listing.class_names[target], split])
    return text.getvalue().encode()


def _identify(listing: Listing, place: Path, reading: Reading) -> str:
    names = [name for rows in listing.splits.values() for name in rows.names]
    hashes, unreadable = hash_files([listing.root / name for name in names], reading)
    if unreadable:
        faults = [f"{names[i]}: {reason}" for i, reason in unreadable.items()]
        raise refuse(FOLDER, faults, check=verify_command(FOLDER, place))
    return folder_id(listing, hashes)


def folder_id(listing: Listing, hashes: Sequence[str]) -> str:
    """The task's id, from the lists and the SHA-256 of each file in their order.

    The order of classes is hashed only where it differs from the order of code points, which older
    versions used for all folders: their ids stay valid.
    """
    digest = hashlib.sha256(split_csv(listing))
    digest.update("".join(hashes).encode())
    if list(listing.class_names) != sorted(listing.class_names):
        digest.update(json.dumps(listing.class_names).encode())
    return f"{FOLDER}-{digest.hexdigest()[:8]}"


def _read_folders(place: Path, faults: list[str], notes: list[str]) -> list[_Image]:
    """The images below class folders, which may be below folders of splits."""
    if not place.is_dir():
        faults.append(f"'{place}' is not a folder and not a .csv file")
        return []
    top = walk(place)
    faults += [f"{path}: {reason}" for path, reason in top.all_faults()]
    layout = recognise(top, faults, notes)
    images = [
        _Image(name, folder.last_name, split)
        for folder, split in layout.classes
        for name in folder.image_paths()
    ]
    there = {image.label for image in images}
    faults += [
        _tell_empty(folder)
        for folder, _ in layout.classes
        if not folder.has_images and (folder.other_paths() or folder.last_name not in there)
    ]
    if not images and not faults:
        faults.append(_tell_no_classes(place, top))
    elif layout.loose:
        count, first = len(layout.loose), layout.loose[0]
        notes.append(f"left out: {count:,} images in no class's folder, as {first}")
    whole = [folder for folder, _ in layout.classes if folder.has_images]
    others = [name for folder in whole for name in folder.other_paths()]
    if images and others:
        notes.append(f"left out: {len(others):,} files that are no images by name, as {others[0]}")
    return images


def _tell_empty(folder: Folder) -> str:
    """The fault of a class folder without images."""
    others = folder.other_paths()
    why = (
        f"{len(others):,} files that are none by name, as {others[0]}" if others else "it is empty"
    )
    return f"class {folder.last_name!r}: no images in '{folder.name}' ({why}); fill or move it away"


def _tell_no_classes(place: Path, top: Folder) -> str:
    expected = "expected folders of images, one for each class"
    tables = [name for name in top.others if PurePath(name).suffix.lower() == ".csv"]
    if tables:
        expected += f", or a CSV as --data-dir: '{place / tables[0]}' lies there"
    if not top.images:
        return f"no images in '{place}'; {expected}"
    return (
        f"'{place}' holds {len(top.images):,} images itself, as {top.images[0]}, and none in a "
        f"folder for its class; {expected}"
    )


def _check_likeness(images: Sequence[_Image], faults: list[str], notes: list[str]) -> None:
    """Add a fault for class names that are likely one class.

    Single letters that differ in case may be two classes, so they are only noted.
    """
    counts = Counter(image.label for image in images)
    first: dict[str, str] = {}
    for image in images:
        first.setdefault(image.label, image.name)
    learnt = {image.label for image in images if image.split in ("", "train")}
    for group in like_names(counts):
        told = ", ".join(
            f"{name} ({counts[label]:,} images, as {shown(first[label])})"
            for name, label in zip(tell_apart(group), group, strict=True)
        )
        if all(len(label) == 1 and label in learnt for label in group):
            notes.append(f"classes that differ in case alone: {told}")
        else:
            faults.append(f"likely one class under {len(group)} names: {told}; expected one name")


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
            split = split_of(row.get("split") or "")
            image = _Image(row["path"] or "", row["label"] or "", split)
            split_there = len(header) < len(COLUMNS) or bool(split)
            if None in row or not image.name or not image.label.strip() or not split_there:
                expected = ",".join(header) + ("" if split_there else " (train, val or test)")
                got = ",".join([*(row[name] or "" for name in header), *(row.get(None) or [])])
                faults.append(
                    f"{path.name} line {reader.line_num}: expected {expected}, got {shown(got)}"
                )
            else:
                images.append(image)
    except csv.Error as error:
        faults.append(f"{path.name} line {reader.reader.line_num}: {error}")
    if not images and not faults:
        faults.append(
            f"no images in '{path}': it has a first line alone; expected a line "
            f"'{','.join(header)}' for each image"
        )
    return images


def _split(images: Sequence[_Image], notes: list[str]) -> list[_Image]:
    """The images with their splits, given or made here."""
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
    """Put a percentage of each class's unsplit images into a split; a single image stays."""
    classes: dict[str, list[_Image]] = defaultdict(list)
    for image in images:
        if not image.split:
            classes[image.label].append(image)
    chosen = drawn(([image.name for image in own] for own in classes.values()), percent)
    return [_Image(i.name, i.label, split) if i.name in chosen else i for i in images]


def drawn(classes: Iterable[Sequence[str]], percent: int) -> set[str]:
    """A percentage of each class's names, chosen by their hashes: at least one of two or more."""

    def order(name: str) -> bytes:  # a name that is not Unicode becomes a fault later
        return hashlib.sha256(f"split/{name}".encode(errors="surrogatepass")).digest()

    chosen: set[str] = set()
    for names in classes:
        count = max(1, round(len(names) * percent / 100)) if len(names) > 1 else 0
        chosen |= set(sorted(names, key=order)[:count])
    return chosen
