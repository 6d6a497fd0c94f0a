"""Fine-grained tasks with JSON lists, as VPT's `src/data/datasets/json_dataset.py` reads them.

    DIR/<folder>/train.json  val.json  test.json        {"<image>": <class>, …}
    DIR/<folder>/<images>/<image>

Classes may be any integers or any strings. They are sorted over all three files and numbered from
0. VPT sorts the classes of each file by itself, which gives the same numbers wherever every file
has an image of every class.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from idat_zoo.data.listing import Listing, Rows, check_count
from idat_zoo.data.suites.base import Suite
from idat_zoo.recipe import Task

if TYPE_CHECKING:
    from idat_zoo.data.reading import Reading

FGVC_LISTS = {"train": "train.json", "val": "val.json", "test": "test.json"}


class Fgvc(Suite):
    """Five fine-grained visual classification tasks with VPT's splits (arXiv:2203.12119)."""

    name = "fgvc"
    title = "FGVC"
    layout = 'DIR/{folder}/<list>, JSON {{"<image>": <class>, …}}, images below {images}/'

    def needed_lists(self, task: Task, *, seed: int = 0) -> list[str]:
        """All three."""
        return list(FGVC_LISTS.values())

    def read(
        self,
        task: Task,
        data_dir: Path,
        faults: list[str],
        *,
        seed: int = 0,
        reading: "Reading | None" = None,
    ) -> Listing:
        """The lists, with counts and the number of classes checked against the task."""
        folder = self.folder(task, data_dir)
        expected = {"train": task.num_train, "val": task.num_val, "test": task.num_test}
        found = {split: _read(folder / name, faults) for split, name in FGVC_LISTS.items()}
        classes = {label for rows in found.values() for label in rows.values()}
        ordered = sorted(classes, key=lambda label: (isinstance(label, str), label))
        if not faults and len({type(label) for label in classes}) > 1:
            faults.append("classes are partly numbers and partly strings")
        if not faults and len(classes) != task.num_classes:
            faults.append(f"{len(classes)} classes in all, expected {task.num_classes}")
        number = {label: i for i, label in enumerate(ordered)}
        below = f"{task.images}/" if task.images else ""
        splits = {}
        for split, rows in found.items():
            check_count(FGVC_LISTS[split], len(rows), expected[split], faults)
            splits[split] = Rows(
                source=FGVC_LISTS[split],
                names=[below + name for name in rows],
                targets=[number[label] for label in rows.values()],
            )
        names = _names(ordered) if len(ordered) == task.num_classes else ()
        return Listing(root=folder, splits=splits, class_names=names)


def _names(ordered: Sequence[int | str]) -> tuple[str, ...]:
    """The classes' names in the lists; none where they are the numbers 0, 1, … themselves."""
    return () if ordered == list(range(len(ordered))) else tuple(map(str, ordered))


def _read(path: Path, faults: list[str]) -> dict[str, int | str]:
    twice: list[str] = []

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        counts = Counter(name for name, _ in items)
        twice.extend(name for name, count in counts.items() if count > 1)
        return dict(items)

    try:
        rows = json.loads(path.read_bytes(), object_pairs_hook=pairs)
    except (OSError, ValueError, RecursionError) as error:
        faults.append(f"{path.name}: cannot be read: {error}")
        return {}
    if not isinstance(rows, dict):
        faults.append(f"{path.name}: expected an object of image names and classes")
        return {}
    faults += [f"{path.name}: {name}: is listed twice" for name in twice]
    wrong = {name: label for name, label in rows.items() if type(label) not in (int, str)}
    faults += [
        f"{path.name}: {name}: expected a class as a whole number or a string, got {label!r}"
        for name, label in wrong.items()
    ]
    return {name: label for name, label in rows.items() if name not in wrong}
