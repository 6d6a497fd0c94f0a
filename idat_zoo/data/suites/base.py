"""What a suite is: tasks whose images are stored, listed and read in one way.

To add a suite, subclass `Suite` in a file of this folder and add a line to `SUITES`, or bring the
class by a plugin (docs/plugins.md has a worked example). The tasks themselves are tables of a
shelf's tasks.toml with `suite = NAME`.

This module and the suites load no torch when they are imported; what needs tensors is imported
inside the methods that return them.
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from idat_zoo.data.listing import Listing
from idat_zoo.data.on_disk import data_folder
from idat_zoo.recipe import Task

if TYPE_CHECKING:
    from idat_zoo.data.reading import Reading
    from idat_zoo.data.task_data import TaskData


class Place(StrEnum):
    """Where the images of a suite's tasks are."""

    BUILT_IN = "built in"
    """Nowhere on disk: they are drawn by code or ship with a package."""
    DATA_FOLDER = "data folder"
    """In a folder for each task, below `--data-dir` or the user's data folder."""
    DATA_DIR = "data dir"
    """At `--data-dir` itself, which must be given."""
    MEMORY = "memory"
    """In arrays of the Python program that trains."""


class Suite:
    """The tasks of one suite: where their images are and how they are read.

    A subclass sets `name`, `title` and `layout`, and defines `read`, or `make` where its images
    are `BUILT_IN`.
    """

    name: ClassVar[str]
    """The value of a task's `suite`; on the command line, the word for all tasks of the suite."""
    title: ClassVar[str]
    """The suite's name in reports."""
    layout: ClassVar[str]
    """One line on what the files look like; `{folder}` and `{images}` are the task's folders."""
    place: ClassVar[Place] = Place.DATA_FOLDER
    groups: ClassVar[tuple[str, ...]] = ()
    """The groups of its tasks, in order. A report takes means over the tasks of a suite with groups
    (`mean<tasks>`) and over the means of its groups (`mean<groups>`), and none over other suites.
    """
    has_source: ClassVar[bool] = False
    """Whether a source for `idat data pull` is on the built-in shelf."""
    may_shrink: ClassVar[bool] = False
    """Whether `--skip-corrupt` may leave images out. It may not where papers fix the counts."""
    is_split_here: ClassVar[bool] = False
    """Whether idat-zoo may choose the splits itself; a run then keeps them as split.csv."""
    no_shelf: ClassVar[str] = ""
    """Why a shelf cannot have tasks of the suite, in words that follow its name; '' if it can."""

    def describe_layout(self, task: Task) -> str:
        """`layout` with the task's folders filled in."""
        return self.layout.format(folder=task.folder, images=task.images or f"DIR/{task.folder}")

    def needed_lists(self, task: Task, *, seed: int = 0) -> list[str]:
        """The files without which a task cannot be read, below its folder.

        The last one marks the task's folder inside a zip that `idat data pull` reads. `seed` is the
        run's; only few-shot tasks have lists of their own for each seed.
        """
        return []

    def drawn_seeds(self, task: Task, data_dir: Path | None) -> list[int]:
        """The seeds that there are lists of on disk; [0] where lists do not depend on the seed."""
        return [0]

    def folder(self, task: Task, data_dir: Path | None) -> Path:
        """The folder that holds a task's lists and images."""
        return data_folder(data_dir) / task.folder

    def missing(self, task: Task, data_dir: Path | None, *, seed: int = 0) -> str:
        """The lists of a task that are not there, in words; '' if all are."""
        folder = self.folder(task, data_dir)
        absent = [str(folder / name) for name in self.needed_lists(task, seed=seed)]
        absent = [path for path in absent if not Path(path).is_file()]
        if not absent:
            return ""
        if data_dir is None and not folder.exists():
            return (
                f"images of task '{task.id}' (no --data-dir was given, IDAT_DATA_DIR is not set, "
                f"and '{folder}' is not there)"
            )
        return f"images of task '{task.id}': no {', '.join(absent)}"

    def how_to_get(self, task: Task) -> str:
        """How a user obtains a task's images."""
        if self.has_source:
            return f"`idat data pull {task.id}` fetches them; or --data-dir DIR"
        return "get the folders (docs/data.md), then --data-dir DIR"

    def word(self, task: Task) -> str:
        """What `--task` takes to mean the task."""
        return task.id

    def num_images(self, task: Task, data_dir: Path | None) -> dict[str, int]:
        """How many images each split has, as far as that is known; 0 where it is not."""
        known: Mapping[str, tuple[int, ...]] = {
            "train": task.num_train,
            "val": task.num_val,
            "test": task.num_test,
        }
        return {split: max(sizes, default=0) for split, sizes in known.items()}

    def read(
        self,
        task: Task,
        data_dir: Path,
        faults: list[str],
        *,
        seed: int = 0,
        reading: "Reading | None" = None,
    ) -> Listing:
        """A task's lists from disk; every fault of them is appended to `faults`.

        `missing` has found nothing missing before. Whether the listed files are there is checked by
        the caller. `reading` matters where files must be hashed to know the task.

        Raises: DataError where a folder is not the task's.
        """
        raise NotImplementedError

    def make(self, task: Task, img_size: int) -> "TaskData":
        """A built-in task's three splits as uint8 tensors [N, 3, img_size, img_size].

        Raises: UsageError for a task that the suite does not have.
        """
        raise NotImplementedError
