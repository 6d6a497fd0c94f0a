"""Fakes of every layout that images may lie in: real lists and folders, tiny images, few of them.

An image's colour tells its class, so that a toy network learns it. Half are JPEG, half are PNG.
"""

import colorsys
import csv
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from PIL import Image

from idat_zoo.data.suites.fewshot import FEWSHOT_TEST, fewshot_train
from idat_zoo.data.suites.fgvc import FGVC_LISTS
from idat_zoo.data.suites.vtab1k import VTAB1K_BOTH, VTAB1K_LISTS
from idat_zoo.recipe import Task
from idat_zoo.registry import Registry, load_registry

COUNTS = {"train": 24, "val": 8, "test": 16}
SUFFIXES = ("jpg", "png")
SHOWN = 4
"""How many classes a fake VTAB-1K task shows at most, the first and the last among them."""


def write_image(path: Path, label: int, num_classes: int, *, seed: int = 0) -> None:
    """12 x 9 pixels in the colour of a class, with some noise."""
    colour = np.array(colorsys.hsv_to_rgb(label / num_classes, 1, 0.8)) * 200
    noise = np.random.default_rng(seed).integers(0, 40, (9, 12, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((colour + noise).astype(np.uint8)).save(path)


# VTAB-1K


def vtab1k_tasks(registry: Registry | None = None) -> list[Task]:
    """The 19 tasks of the registry."""
    tasks = (registry or load_registry()).tasks
    return [task for task in tasks.values() if task.suite == "vtab1k"]


def write_vtab1k(root: Path, shelf: Path) -> None:
    """All 19 tasks in the layout that all papers share, and the shelf that tells their counts."""
    tasks = vtab1k_tasks()
    for task in tasks:
        write_vtab1k_task(root, task)
    write_shelf(shelf, {task.id: dict(COUNT_FIELDS) for task in tasks})


def write_vtab1k_task(root: Path, task: Task, counts: Mapping[str, int] = COUNTS) -> Path:
    """One task's lists and images; `dsprites_ori` has the images of `dsprites_loc`, as in truth."""
    folder = root / task.folder
    labels = shown_labels(task.num_classes)
    seed = zlib.crc32(task.id.removesuffix("_ori").removesuffix("_loc").encode())
    both: list[str] = []
    for split, name in VTAB1K_LISTS.items():
        stem = name.removesuffix(".txt")
        lines = []
        for i in range(counts[split]):
            label = labels[i % len(labels)]
            place = f"images/{stem}/{i:06d}.{SUFFIXES[i % 2]}"
            seed += 1
            write_image(folder / place, label, task.num_classes, seed=seed)
            if task.id == "dsprites_ori":
                label = task.num_classes - 1 - label
            lines.append(f"{place} {label}\n")
            if split != "test":
                copy = f"images/train800val200/{len(both):06d}.{SUFFIXES[i % 2]}"
                hard_link(folder / place, folder / copy)
                both.append(f"{copy} {label}\n")
        (folder / name).write_text("".join(lines))
    (folder / VTAB1K_BOTH).write_text("".join(both))
    return folder


def zip_folders(root: Path, file: Path, *, below: str = "vtab-1k") -> Path:
    """All that lies in a folder as a zip, as `zip -r` makes one; images stored, lists deflated."""
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(root.rglob("*")):
            method = zipfile.ZIP_STORED if path.suffix[1:] in SUFFIXES else zipfile.ZIP_DEFLATED
            name = f"{below}/{path.relative_to(root).as_posix()}".lstrip("/")
            archive.write(path, name, compress_type=method)
    return file


def shown_labels(num_classes: int) -> list[int]:
    """At most four classes, spread from the first to the last."""
    return sorted({k * (num_classes - 1) // (SHOWN - 1) for k in range(SHOWN)})


def hard_link(source: Path, target: Path) -> None:
    """The same file under another name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.hardlink_to(source)


def link_tree(source: Path, target: Path) -> Path:
    """A folder again, with images as hard links and lists as copies to write on."""
    for path in source.rglob("*"):
        if path.is_file():
            own = target / path.relative_to(source)
            if path.suffix[1:] in SUFFIXES:
                hard_link(path, own)
            else:
                own.parent.mkdir(parents=True, exist_ok=True)
                own.write_bytes(path.read_bytes())
    return target


# Shelves

COUNT_FIELDS = {f"num_{split}": [count] for split, count in COUNTS.items()}


def write_shelf(folder: Path, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """A user's shelf that redefines tasks of the registry in some fields and keeps the others."""
    registry = load_registry()
    tables = {}
    for name, fields in changes.items():
        task = registry.tasks[name]
        kept = task.model_dump(mode="json", exclude={"id"}, exclude_none=True)
        aliases = [alias for alias, of in registry.aliases.items() if of == name]
        tables[name] = (
            kept | {"pair": registry.default_pairs[name], "aliases": aliases} | dict(fields)
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tasks.toml").write_text(tomli_w.dumps(tables))


# Fine-grained and few-shot tasks


def write_fgvc(
    root: Path, task: Task, labels: Sequence[int | str], counts: Mapping[str, int] = COUNTS
) -> Path:
    """Three JSON files of names and classes, as VPT writes them; images below class folders."""
    folder = root / task.folder
    for split, name in FGVC_LISTS.items():
        rows = {}
        for i in range(counts[split]):
            place = i % len(labels)
            image = f"{place:03d}.class/{split}_{i:04d}.{SUFFIXES[i % 2]}"
            seed = zlib.crc32(image.encode())
            write_image(folder / task.images / image, place, len(labels), seed=seed)
            rows[image] = labels[place]
        (folder / name).write_text(json.dumps(rows))
    return folder


def write_fewshot(root: Path, task: Task, *, seeds: Iterable[int], pool: int = 3) -> Path:
    """For each seed a list of `shots` images a class out of a pool, and one image a class to test.

    Lists name images below the images' folder: `class_7/1.png 7`.
    """
    folder = root / task.folder
    (folder / "annotations").mkdir(parents=True)

    def write_list(name: str, chosen: Iterable[int]) -> None:
        chosen = list(chosen)
        rows = [
            f"class_{label}/{i}.{SUFFIXES[i % 2]} {label}\n"
            for label in range(task.num_classes)
            for i in chosen
        ]
        (folder / name).write_text("".join(rows))

    for label in range(task.num_classes):
        for i in range(pool + 1):
            path = folder / task.images / f"class_{label}" / f"{i}.{SUFFIXES[i % 2]}"
            write_image(path, label, task.num_classes, seed=i)
    for seed in seeds:
        chosen = np.random.default_rng(seed).permutation(pool)[: task.shots]
        write_list(fewshot_train(task.shots, seed), (int(i) for i in chosen))
    write_list(FEWSHOT_TEST, [pool])
    return folder


# One's own images


def write_class_folders(root: Path, counts: Mapping[str, int], *, seed: int = 0) -> Path:
    """DIR/<class>/<image>, each class with its count."""
    for label, (name, count) in enumerate(counts.items()):
        for i in range(count):
            place = root / name / f"{i:03d}.{SUFFIXES[i % 2]}"
            write_image(place, label, len(counts), seed=seed + 1000 * label + i)
    return root


def write_split_folders(root: Path, counts: Mapping[str, Mapping[str, int]]) -> Path:
    """DIR/<split>/<class>/<image>."""
    for number, (split, classes) in enumerate(counts.items()):
        write_class_folders(root / split, classes, seed=10_000 * number)
    return root


def write_csv(path: Path, rows: Iterable[Sequence[str]], header: Sequence[str]) -> Path:
    """A CSV as spreadsheets write it."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path
