"""VTAB-1K folders in the layout all papers share.

    DIR/<folder>/train800.txt  val200.txt  test.txt        "images/…/000000.jpg 7", one a line
    DIR/<folder>/images/…

Images are resized to the backbone's input size without crop, bicubic, in RGB. The combined list
`train800val200.txt` is not read: the 1,000 images are train800 followed by val200.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from idat_zoo.data.task_data import Split, TaskData
from idat_zoo.errors import DataError
from idat_zoo.recipe import Task

TRAIN_SIZES = {"train800": (800,), "val200": (200,)}


def task_folder(task: Task, data_dir: Path) -> Path:
    """Where a task's lists and images lie."""
    return data_dir / task.folder


def missing_images(task: Task, data_dir: Path | None) -> str:
    """What is not there, in words, or ''."""
    if data_dir is None:
        return f"images of task '{task.id}' (no --data-dir was given and IDAT_DATA_DIR is not set)"
    folder = task_folder(task, data_dir)
    lists = [folder / f"{name}.txt" for name in (*TRAIN_SIZES, "test")]
    absent = [str(path) for path in lists if not path.is_file()]
    return f"images of task '{task.id}': no {', '.join(absent)}" if absent else ""


def load_vtab1k(task: Task, img_size: int, data_dir: Path | None) -> TaskData:
    """Check the lists against the task, then decode every image.

    Raises: DataError naming every fault of lists and images found.
    """
    absent = missing_images(task, data_dir)
    if absent or data_dir is None:
        raise DataError(absent)
    folder = task_folder(task, data_dir)
    faults: list[str] = []
    sizes = TRAIN_SIZES | {"test": task.num_test}
    lists = {name: _read_list(folder / f"{name}.txt", task, sizes[name], faults) for name in sizes}
    if faults:
        raise DataError(f"task '{task.id}': " + _listed(faults))
    splits = {name: _decode(folder, rows, img_size, faults) for name, rows in lists.items()}
    if faults:
        raise DataError(f"task '{task.id}': " + _listed(faults))
    return TaskData(
        task=task, train800=splits["train800"], val200=splits["val200"], test=splits["test"]
    )


def _listed(faults: list[str], shown: int = 10) -> str:
    rest = f"\n  … and {len(faults) - shown} more" if len(faults) > shown else ""
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return f"{count} in its data:\n  " + "\n  ".join(faults[:shown]) + rest


def _read_list(
    path: Path, task: Task, sizes: tuple[int, ...], faults: list[str]
) -> list[tuple[str, int]]:
    """(relative path, class) of each line; what is wrong is added to `faults`."""
    rows: list[tuple[str, int]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path.name}: cannot be read: {error}")
        return rows
    for number, line in enumerate(lines, start=1):
        name, _, label = line.rpartition(" ")
        if not name or not label.isdecimal() or int(label) >= task.num_classes:
            faults.append(
                f"{path.name} line {number}: expected 'path class' with a class below "
                f"{task.num_classes}, got {line!r}"
            )
            continue
        rows.append((name, int(label)))
    if len(lines) not in sizes:
        expected = " or ".join(f"{size:,}" for size in sizes)
        faults.append(f"{path.name}: {len(lines):,} lines, expected {expected}")
    return rows


def _decode(folder: Path, rows: list[tuple[str, int]], img_size: int, faults: list[str]) -> Split:
    images = np.zeros((len(rows), 3, img_size, img_size), dtype=np.uint8)
    for i, (name, _) in enumerate(rows):
        try:
            with Image.open(folder / name) as image:
                size = (img_size, img_size)
                resized = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            faults.append(f"{name}: {error}")
            continue
        images[i] = np.asarray(resized).transpose(2, 0, 1)
    return Split(
        images=torch.from_numpy(images),
        targets=torch.tensor([label for _, label in rows]),
        index=torch.arange(len(rows)),
    )
