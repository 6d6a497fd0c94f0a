"""The mini suite: six small tasks that are built in and need no download (docs/mini.md).

None of them is a VTAB-1K task, though they are grouped as VTAB-1K's are.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from idat_zoo.data.suites.base import Place, Suite
from idat_zoo.recipe import Task

if TYPE_CHECKING:
    from idat_zoo.data.task_data import TaskData


class Mini(Suite):
    """Handwritten digits that scikit-learn ships, and five tasks that are drawn by code."""

    name = "mini"
    title = "the mini suite (built in, not VTAB-1K)"
    layout = "built in"
    place = Place.BUILT_IN
    groups = ("natural", "specialized", "structured")

    def missing(self, task: Task, data_dir: Path | None, *, seed: int = 0) -> str:
        """Always '': nothing is on disk."""
        return ""

    def make(self, task: Task, img_size: int) -> "TaskData":
        """The task's splits. Raises: UsageError for a task that is not one of the six."""
        from idat_zoo.data.mini.load import load_mini

        return load_mini(task, img_size)
