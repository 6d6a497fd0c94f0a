"""Few-shot tasks: k training images per class, as iDAT's `data/fewshot.py` reads them.

    DIR/<folder>/annotations/train_meta.list.num_shot_<k>.seed_<s>      lines "path class"
    DIR/<folder>/annotations/test_meta.list
    DIR/<folder>/<images>/<path>

There is a training list for each seed, and a run reads the list of its own seed: several seeds are
then several draws of images, as papers report them. There is no list to validate on, so `val` is
empty.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from idat_zoo.data.listing import Listing, Rows, read_pairs
from idat_zoo.data.suites.base import Suite
from idat_zoo.recipe import Task

if TYPE_CHECKING:
    from idat_zoo.data.reading import Reading

FEWSHOT_TEST = "annotations/test_meta.list"


def fewshot_train(shots: int, seed: int | str) -> str:
    """The training list of k images per class for a seed; with `*` as seed, a pattern for all."""
    return f"annotations/train_meta.list.num_shot_{shots}.seed_{seed}"


class Fewshot(Suite):
    """Tasks with 1, 2, 4, 8 or 16 training images per class (NOAH, arXiv:2206.04673)."""

    name = "fewshot"
    title = "few-shot"
    layout = 'DIR/{folder}/<list>, lines "<image> <class>", images below {images}/'

    def needed_lists(self, task: Task, *, seed: int = 0) -> list[str]:
        """The training list of the seed, and the test list."""
        return [fewshot_train(task.shots, seed), FEWSHOT_TEST]

    def drawn_seeds(self, task: Task, data_dir: Path | None) -> list[int]:
        """The seeds that there is a training list of."""
        found = self.folder(task, data_dir).glob(fewshot_train(task.shots, "*"))
        seeds = (path.name.rpartition("_")[2] for path in found)
        return sorted(int(seed) for seed in seeds if seed.isascii() and seed.isdecimal())

    def read(
        self,
        task: Task,
        data_dir: Path,
        faults: list[str],
        *,
        seed: int = 0,
        reading: "Reading | None" = None,
    ) -> Listing:
        """The two lists; a class with more or fewer images than k is noted, not refused."""
        folder = self.folder(task, data_dir)
        source = folder / fewshot_train(task.shots, seed)
        train = read_pairs(source, task, faults, below=task.images)
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
