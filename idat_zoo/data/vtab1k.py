"""VTAB-1K folders in the layout all papers share.

    DIR/<folder>/train800.txt  val200.txt  train800val200.txt  test.txt
    DIR/<folder>/images/…                           lines "images/train800/000000.jpg 7"

The 1,000 images to learn from are train800 followed by val200. `train800val200.txt` lists copies of
them; it is not trained on, but if it is there it has to agree.
"""

from collections import Counter
from pathlib import Path

from idat_zoo.data.listing import Listing, read_pairs
from idat_zoo.layouts import VTAB1K_BOTH, VTAB1K_LISTS, task_folder
from idat_zoo.recipe import Task


def read_vtab1k(task: Task, data_dir: Path, faults: list[str]) -> Listing:
    """The lists, checked against the task; what is wrong with them is added to `faults`."""
    folder = task_folder(task, data_dir)
    expected = {"train": task.num_train, "val": task.num_val, "test": task.num_test}
    splits = {
        split: read_pairs(folder / name, task, faults, expected=expected[split])
        for split, name in VTAB1K_LISTS.items()
    }
    if (folder / VTAB1K_BOTH).is_file():
        _check_both(task, folder, [*splits["train"].targets, *splits["val"].targets], faults)
    return Listing(root=folder, splits=splits)


def _check_both(task: Task, folder: Path, targets: list[int], faults: list[str]) -> None:
    """Copies differ in the order of this list, so only how often each class occurs is compared."""
    both: list[str] = []
    rows = read_pairs(folder / VTAB1K_BOTH, task, both)
    if not both and Counter(rows.targets) != Counter(targets):
        both.append(f"{VTAB1K_BOTH}: its classes are not those of train800.txt and val200.txt")
    faults += both
