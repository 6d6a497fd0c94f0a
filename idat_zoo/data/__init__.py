"""Tasks as tensors: uint8 images with labels and a fingerprint, from disk or built in."""

from collections.abc import Callable
from pathlib import Path

from idat_zoo.data.digits import load_digits
from idat_zoo.data.task_data import Split, TaskData
from idat_zoo.data.vtab1k import load_vtab1k, missing_images
from idat_zoo.errors import UsageError
from idat_zoo.recipe import Task

__all__ = ["BUILTIN", "Split", "TaskData", "load_task", "missing_data"]

BUILTIN: dict[str, Callable[[Task, int], TaskData]] = {"digits": load_digits}


def missing_data(task: Task, data_dir: Path | None) -> str:
    """What of a task's data is not there, in words, or '' when it can be loaded."""
    return "" if task.suite == "builtin" else missing_images(task, data_dir)


def load_task(task: Task, *, img_size: int, data_dir: Path | None = None) -> TaskData:
    """A task's splits as uint8 tensors at a backbone's input size.

    Raises: DataError where the data is missing or not as the task declares it.
    """
    if task.suite == "builtin":
        if task.id not in BUILTIN:
            raise UsageError(f"task '{task.id}' is said to be built in, but is not.")
        return BUILTIN[task.id](task, img_size)
    return load_vtab1k(task, img_size, data_dir)
