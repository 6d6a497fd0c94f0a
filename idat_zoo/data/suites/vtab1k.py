"""VTAB-1K: 19 tasks of 1,000 training images each, in the folder layout that all papers share.

    DIR/<folder>/train800.txt  val200.txt  train800val200.txt  test.txt
    DIR/<folder>/images/…                           lines "images/train800/000000.jpg 7"

The 1,000 training images are train800 followed by val200. `train800val200.txt` lists copies of them
under other names; it is never trained on, but if it is there, its classes are compared.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from idat_zoo.data.listing import Listing, read_pairs
from idat_zoo.data.suites.base import Suite
from idat_zoo.recipe import Task

if TYPE_CHECKING:
    from idat_zoo.data.reading import Reading

VTAB1K_LISTS = {"train": "train800.txt", "val": "val200.txt", "test": "test.txt"}
VTAB1K_BOTH = "train800val200.txt"


class Vtab1k(Suite):
    """The Visual Task Adaptation Benchmark with 1,000 training images (arXiv:1910.04867)."""

    name = "vtab1k"
    title = "VTAB-1K"
    layout = 'DIR/{folder}/<list>, lines "images/train800/000000.jpg 7"'
    groups = ("natural", "specialized", "structured")
    has_source = True

    def needed_lists(self, task: Task, *, seed: int = 0) -> list[str]:
        """train800, val200 and test; the list of both is not needed."""
        return list(VTAB1K_LISTS.values())

    def read(
        self,
        task: Task,
        data_dir: Path,
        faults: list[str],
        *,
        seed: int = 0,
        reading: "Reading | None" = None,
    ) -> Listing:
        """The lists, with counts and classes checked against the task."""
        folder = self.folder(task, data_dir)
        expected = {"train": task.num_train, "val": task.num_val, "test": task.num_test}
        splits = {
            split: read_pairs(folder / name, task, faults, expected=expected[split])
            for split, name in VTAB1K_LISTS.items()
        }
        if (folder / VTAB1K_BOTH).is_file():
            targets = [*splits["train"].targets, *splits["val"].targets]
            _check_both(task, folder, targets, faults)
        return Listing(root=folder, splits=splits)


def _check_both(task: Task, folder: Path, targets: list[int], faults: list[str]) -> None:
    """Compare how often each class occurs; the copies are in another order in each release."""
    both: list[str] = []
    rows = read_pairs(folder / VTAB1K_BOTH, task, both)
    if not both and Counter(rows.targets) != Counter(targets):
        both.append(f"{VTAB1K_BOTH}: its classes are not those of train800.txt and val200.txt")
    faults += both
