"""A user's own images on disk: `--task folder --data-dir PLACE`.

`idat_zoo.data.folder` reads the place, which is a folder of class folders or a CSV file.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from idat_zoo.data.listing import Listing
from idat_zoo.data.suites.base import Place, Suite
from idat_zoo.recipe import Task

if TYPE_CHECKING:
    from idat_zoo.data.reading import Reading


class OwnFolder(Suite):
    """Tasks that are described by the images themselves, so that no shelf has them."""

    name = "folder"
    title = "your own images"
    layout = (
        "DIR/<class>/<image>; or DIR/train/<class>/<image>, val/…, test/…; or FILE.csv with "
        "path,label or path,label,split"
    )
    place = Place.DATA_DIR
    may_shrink = True
    is_split_here = True
    no_shelf = "is of the images of --data-dir, which name their own classes"

    def missing(self, task: Task, data_dir: Path | None, *, seed: int = 0) -> str:
        """What is wrong with `data_dir`, in words; '' if something is there."""
        if data_dir is None:
            return f"images of task '{task.id}' (no --data-dir was given)"
        return "" if data_dir.exists() else f"images of task '{task.id}': no '{data_dir}'"

    def how_to_get(self, task: Task) -> str:
        """The user has them and says where."""
        return "--data-dir DIR names the folder that they lie in, or a CSV of them"

    def word(self, task: Task) -> str:
        """The word `folder`: which task it is follows from the images."""
        return self.name

    def num_images(self, task: Task, data_dir: Path | None) -> dict[str, int]:
        """Counted on disk; nothing without `data_dir`."""
        from idat_zoo.data.folder import list_folder

        own = list_folder(data_dir, []).splits if data_dir is not None else {}
        return {split: len(rows) for split, rows in own.items()}

    def read(
        self,
        task: Task,
        data_dir: Path,
        faults: list[str],
        *,
        seed: int = 0,
        reading: "Reading | None" = None,
    ) -> Listing:
        """The folder's lists. Raises: DataError with every fault, or for another task's folder."""
        from idat_zoo.data.folder import read_folder

        return read_folder(data_dir, task, reading)
