"""Recognition of the splits and the classes among the folders of a data set.

A folder's name means a split if one of its words does (`train`, `Testing`, `test_set`,
`imagenet-val`, `train2017`), and if the structure agrees: splits hold class folders, and classes
hold images. A structure that can be read in two ways is a fault that quotes the folders.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from idat_zoo.data.class_names import likeness
from idat_zoo.data.walk import Folder

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
FILLERS = ("dataset", "data", "set", "split", "images", "image", "imgs", "img", "folder")
SHOWN = 5

Named = list[tuple[Folder, str]]
"""Folders, each with the split that it is or belongs to, '' for none."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The class folders with their splits, and the paths of images that have no class (`loose`).

    Several folders of one name are one class in several splits.
    """

    classes: Named = field(default_factory=list)
    loose: list[str] = field(default_factory=list)


def recognise(top: Folder, faults: list[str], notes: list[str]) -> Layout:
    """The class folders of a folder, with the splits that they are in.

    Faults are appended to `faults`, remarks for the user to `notes`.
    """
    loose: list[str] = []
    while len(top.folders) == 1 and top.folders[0].is_deep and not _splits(top.folders):
        loose += _own_images(top)
        top = top.folders[0]
        notes.append(f"the classes are looked for in '{top.name}', which lies alone in its folder")
    loose += _own_images(top)
    filled = [folder for folder in top.folders if folder.has_images]
    splits = _splits(filled)
    apart = [folder for folder, _ in splits]
    beside = [folder for folder in filled if folder not in apart]
    flat = [folder for folder in apart if not folder.is_deep]
    if beside and flat == apart and len({split for _, split in splits}) == 1:
        notes.append(f"{_names(apart)} {_is(apart)} taken as a class, like {_names(beside)} beside")
        splits = []
    wrong = _wrong_splits(splits, beside=beside, flat=flat) if splits else _wrong_classes(filled)
    if wrong:
        faults.append(wrong)
        return Layout()
    if not splits:
        return Layout(classes=[(folder, "") for folder in top.folders], loose=loose)
    empty = [folder for folder in top.folders if folder not in filled]
    if empty:
        left = ", ".join(folder.last_name for folder in empty)
        notes.append(f"left out: {left} beside the folders of the splits")
    loose += [name for folder, _ in splits for name in _own_images(folder)]
    while all(len(f.folders) == 1 and f.folders[0].is_deep for f, _ in splits):
        splits = [(folder.folders[0], split) for folder, split in splits]
        loose += [name for folder, _ in splits for name in _own_images(folder)]
    notes += [
        f"'{folder.name}' is {split}"
        for folder, split in splits
        if folder.name.lower() not in (split, "valid", "validation")
    ]
    _check_common(splits, faults)
    return Layout(
        classes=[(below, split) for folder, split in splits for below in folder.folders],
        loose=loose,
    )


def split_of(word: str) -> str:
    """The split that a word means (`Training`, `valid`), or ''."""
    split, rest = _parse(word)
    return "" if rest else split


def _splits(folders: Sequence[Folder]) -> Named:
    """The folders that are splits by name: by the whole name, or all with the same other words."""
    found: dict[tuple[str, ...], Named] = defaultdict(list)
    for folder in folders:
        split, rest = _parse(folder.last_name)
        if split:
            found[rest].append((folder, split))
    if () in found:
        return found[()]
    several = [named for named in found.values() if len({split for _, split in named}) > 1]
    return several[0] if len(several) == 1 else []


def _parse(name: str) -> tuple[str, tuple[str, ...]]:
    """The one split that a name means, or '', and the words of the name that mean no split."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    splits, rest = set[str](), list[str]()
    for word in words:
        stems = [word, *(word.removesuffix(filler) for filler in FILLERS)]
        known = next((SPLIT_WORDS[stem] for stem in stems if stem in SPLIT_WORDS), "")
        if known:
            splits.add(known)
        elif word not in FILLERS:
            rest.append(word)
    if splits == {"train", "val"}:  # train_val is what may be learnt from
        splits = {"train"}
    return (splits.pop() if len(splits) == 1 else ""), tuple(rest)


def _wrong_splits(splits: Named, *, beside: Sequence[Folder], flat: Sequence[Folder]) -> str:
    """Why folders with splits' names cannot be read as splits, or ''."""
    folders = [folder for folder, _ in splits]
    if beside:
        return (
            f"{_names(folders)} {_is(folders)} named for splits, {_names(beside)} beside "
            f"{_is(beside)} not; expected train, val, test alone, or classes alone: rename or move "
            "away, or write a CSV with path,label"
        )
    if flat:
        count = sum(len(folder.images) for folder in flat)
        return (
            f"{_names(flat)}: {count:,} images in no class's folder; expected "
            f"{flat[0].last_name}/<class>/<image>: move images without a class away, or write a "
            "CSV with path,label"
        )
    counts = Counter(split for _, split in splits)
    twice = [folder for folder, split in splits if counts[split] > 1]
    if twice:
        return f"{_names(twice)} are one split by their names; expected one folder for each split"
    if len(splits) == 1:
        folder, split = splits[0]
        lacking = "train" if split != "train" else "test"
        return (
            f"no images for {lacking} beside '{folder.last_name}'; to have that folder split here, "
            "give it as --data-dir"
        )
    return ""


def _check_common(splits: Named, faults: list[str]) -> None:
    """Add a fault where val or test has no class in common with train."""
    names = {split: {likeness(below.last_name) for below in f.folders} for f, split in splits}
    folders = {split: folder for folder, split in splits}
    for split in ("val", "test"):
        if "train" in names and split in names and not names["train"] & names[split]:
            learnt, other = folders["train"], folders[split]
            faults.append(
                f"'{learnt.name}' and '{other.name}' have no class in common: "
                f"{_names(learnt.folders)} and {_names(other.folders)}"
            )


def _wrong_classes(folders: Sequence[Folder]) -> str:
    """Why folders without names of splits cannot be classes, or ''.

    They cannot if they all hold the same folders, or folders with names of splits.
    """
    mixed = next((f for f in folders if len({s for _, s in _splits(f.folders)}) > 1), None)
    if mixed is not None:
        below = [folder for folder, _ in _splits(mixed.folders)]
        return (
            f"'{mixed.name}' holds {_names(below)}: splits below a class; expected them above: "
            f"{below[0].last_name}/{mixed.last_name}/<image>, or a CSV with path,label,split"
        )
    inner = [{likeness(b.last_name) for b in f.folders if b.has_images} for f in folders]
    counts = Counter(name for names in inner for name in names)
    common = {name for name, count in counts.items() if count > max(1, len(folders) // 2)}
    alike = [
        (folder, names)
        for folder, names in zip(folders, inner, strict=True)
        if len(names & common) >= max(2, len(common) / 2)
    ]
    if len(alike) < 2 or 2 * len(alike) <= len(folders):
        return ""
    if 2 * len(common) < min(len(names) for _, names in alike):
        return ""
    shared = [b for b in alike[0][0].folders if likeness(b.last_name) in common]
    return (
        f"{_names([folder for folder, _ in alike])} hold the same folders ({_names(shared)}), as "
        "splits do; if they are splits, name them train, val, test; if they are classes, write a "
        "CSV with path,label"
    )


def _is(folders: Sequence[Folder]) -> str:
    return "is" if len(folders) == 1 else "are"


def _own_images(folder: Folder) -> list[str]:
    return [folder.path(name) for name in folder.images]


def _names(folders: Iterable[Folder]) -> str:
    names = [repr(folder.last_name) for folder in folders]
    return ", ".join(names[:SHOWN]) + (f", … ({len(names)})" if len(names) > SHOWN else "")
