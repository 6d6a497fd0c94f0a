"""A user's own images in memory: `run(recipe, data=…)` from Python.

`idat_zoo.data.arrays` reads what is passed as `data`.
"""

from pathlib import Path

from idat_zoo.data.suites.base import Place, Suite
from idat_zoo.recipe import Task


class OwnArrays(Suite):
    """Tasks that are described by arrays or data sets, which only their own program has."""

    name = "arrays"
    title = "images that a Python program held"
    layout = "in memory"
    place = Place.MEMORY
    no_shelf = "is of images that a Python program holds"

    def missing(self, task: Task, data_dir: Path | None, *, seed: int = 0) -> str:
        """Always all: nothing is on disk."""
        return f"images of task '{task.id}', which a Python program held"

    def how_to_get(self, task: Task) -> str:
        """The Python functions that take them."""
        return "from Python, run(recipe, data=…) and evaluate(reference, data=…) take them"
