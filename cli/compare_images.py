"""The images that the page of a comparison shows: read anew, if they are still the runs'."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from idat_zoo.errors import ZooError

if TYPE_CHECKING:
    import numpy as np

    from idat_zoo.report.compare import RunsComparison
    from idat_zoo.results import Result


def read_pictures(
    found: "RunsComparison", results: "Sequence[Result]", data_dir: Path | None
) -> "tuple[dict[str, dict[int, np.ndarray]], list[str]]":
    """The images that are shown, by task and index, and why those of other tasks are missing."""
    from idat_zoo.page.thumbnails import shown_images

    pictures: dict[str, dict[int, np.ndarray]] = {}
    missing = []
    by_task = {result.recipe.task.id: result for result in results}
    for one in found.tasks:
        wanted = {image.index for own in shown_images(one) for image in own}
        if not wanted:
            continue
        try:
            pictures[one.task] = _read(by_task[one.task], wanted, data_dir)
        except ZooError as error:
            missing.append(f"{one.task}: its images are not shown: {error.message}")
    return pictures, missing


def _read(result: "Result", wanted: set[int], data_dir: Path | None) -> "dict[int, np.ndarray]":
    """Images `[H, W, 3]` by their indices. Raises: DataError; ZooError if they have changed."""
    from idat_zoo.data.load import load_task

    recipe = result.recipe
    size = recipe.pair.student.img_size
    data = load_task(recipe.task, img_size=size, data_dir=data_dir, seed=result.seed)
    if data.fingerprint != result.data_fingerprint:
        raise ZooError("what is here are not the images that the runs were tested on")
    places = {int(index): place for place, index in enumerate(data.test.index)}
    images, found = data.test.images, {}
    for index in wanted:
        place = places[index]
        found[index] = images[place : place + 1][0].permute(1, 2, 0).numpy()
    return found
