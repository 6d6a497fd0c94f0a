"""The suite `real`: tasks whose images were taken by others and ship with the package.

It stands beside the mini suite, so that the means over the mini suite stay those of its six tasks.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from idat_zoo.data.suites.base import Place, Suite
from idat_zoo.recipe import Task

if TYPE_CHECKING:
    from idat_zoo.data.task_data import TaskData


class Real(Suite):
    """1,000 training and 1,000 test images of Fashion-MNIST; without groups, so without means."""

    name = "real"
    title = "the real suite (built in)"
    layout = "built in"
    place = Place.BUILT_IN

    def missing(self, task: Task, data_dir: Path | None, *, seed: int = 0) -> str:
        """Always '': the images ship with the package."""
        return ""

    def make(self, task: Task, img_size: int) -> "TaskData":
        """The task's splits. Raises: UsageError for a task that is not `fashion`."""
        from idat_zoo.data.real.load import load_real

        return load_real(task, img_size)
