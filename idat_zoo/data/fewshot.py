"""Few-shot tasks: k images per class, drawn by seed, as iDAT's `data/fewshot.py` reads them.

    DIR/<folder>/annotations/train_meta.list.num_shot_<k>.seed_<s>      lines "path class"
    DIR/<folder>/annotations/test_meta.list
    DIR/<folder>/<images>/<path>

The list's seed is the run's, so that several seeds are several draws, as the field reports them.
There is no list to validate on: `val` is empty.
"""

from collections import Counter
from pathlib import Path

from idat_zoo.data.listing import Listing, Rows, read_pairs
from idat_zoo.layouts import FEWSHOT_TEST, fewshot_train, task_folder
from idat_zoo.recipe import Task


def read_fewshot(task: Task, data_dir: Path, faults: list[str], *, seed: int) -> Listing:
    """The two lists, checked against the task; what is wrong with them is added to `faults`."""
    folder = task_folder(task, data_dir)
    train = read_pairs(folder / fewshot_train(task.shots, seed), task, faults, below=task.images)
    test = read_pairs(
        folder / FEWSHOT_TEST, task, faults, expected=task.num_test, below=task.images
    )
    unlike = {label: n for label, n in Counter(train.targets).items() if n != task.shots}
    notes = []
    if unlike or len(set(train.targets)) < task.num_classes:
        notes.append(f"{train.source}: not every class has {task.shots} images")
    nothing = Rows(source="(no list to validate on)", names=[], targets=[])
    splits = {"train": train, "val": nothing, "test": test}
    return Listing(root=folder, splits=splits, notes=notes)
