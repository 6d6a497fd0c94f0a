"""The inputs of runs: images and backbone weights, those that are missing, and how to read them."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from idat_zoo.backbones.pair import Role
from idat_zoo.backbones.pinned import missing_weights, weights_path
from idat_zoo.checkpoint.opened import Opened
from idat_zoo.data.arrays import Arrays
from idat_zoo.data.load import load_task
from idat_zoo.data.reading import Listener, Reading
from idat_zoo.data.suites import suite_of
from idat_zoo.data.task_data import TaskData
from idat_zoo.errors import DataError
from idat_zoo.own_weights import how_to_give, missing_file
from idat_zoo.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The sources of images and weights, the same for all runs of one call.

    `arrays` are images that a Python program holds in memory. `download` allows downloading missing
    weights. `teachers` are the checkpoints of offline teachers, in any order. `listener` is
    informed about the reading of images.
    """

    data_dir: Path | None = None
    arrays: Arrays | None = None
    reading: Reading = field(default_factory=Reading)
    download: bool = False
    teachers: tuple[Opened, ...] = ()
    listener: Listener = field(default_factory=Listener)


Views = Mapping[Role, TaskData]
"""The task's images at each network's input size; the same object where the sizes are equal."""


def load_views(recipe: Recipe, inputs: Inputs, *, seed: int) -> Views:
    """Load the recipe's task at the input size of each network. Raises: as `load_task`."""
    sizes: dict[Role, int] = {"student": recipe.pair.student.img_size}
    if recipe.pair.teacher is not None:
        sizes["teacher"] = recipe.pair.teacher.img_size
    at_size = {
        size: _load_at(size, recipe, inputs, seed=seed) for size in dict.fromkeys(sizes.values())
    }
    return {role: at_size[size] for role, size in sizes.items()}


def load_teacher_views(
    recipe: Recipe, inputs: Inputs, views: Views, *, seed: int
) -> list[TaskData]:
    """The task at the input size of each offline teacher of the recipe, in the recipe's order.

    The same object as in `views` where a size is equal. Raises: as `load_task`.
    """
    at_size = {getattr(recipe.pair, role).img_size: data for role, data in views.items()}
    sizes = [one.backbone.img_size for one in recipe.offline_teachers]
    for size in sizes:
        if size not in at_size:
            at_size[size] = _load_at(size, recipe, inputs, seed=seed)
    return [at_size[size] for size in sizes]


def _load_at(size: int, recipe: Recipe, inputs: Inputs, *, seed: int) -> TaskData:
    return load_task(
        recipe.task,
        img_size=size,
        data_dir=inputs.data_dir,
        seed=seed,
        reading=inputs.reading,
        listener=inputs.listener,
        arrays=inputs.arrays,
    )


def missing_inputs(recipe: Recipe, inputs: Inputs, *, seed: int = 0) -> list[str]:
    """The images and weights that a run needs and that are missing, each with the way to get it.

    Weights are only listed if `inputs` do not allow downloading them.
    """
    missing = []
    suite = suite_of(recipe.task)
    images = suite.missing(recipe.task, inputs.data_dir, seed=seed)
    if images and inputs.arrays is None:
        sure = "--yes or " if suite.has_source else ""
        missing.append(f"{images}; {sure}{suite.how_to_get(recipe.task)}")
    if not inputs.download:
        repos = [missing_weights(spec) for spec in recipe.backbones()]
        missing += [f"weights of '{r}'; --yes downloads them from the Hub" for r in repos if r]
    missing += [
        f"{line}; {how_to_give()}" for spec in recipe.backbones() if (line := missing_file(spec))
    ]
    return missing


def require_inputs(recipe: Recipe, inputs: Inputs, *, seed: int) -> None:
    """Check that images and weights exist, and download missing weights if `inputs` allow it.

    Raises: DataError listing everything that is missing, with a command that needs no download;
    WeightsError if a download fails.
    """
    missing = missing_inputs(recipe, inputs, seed=seed)
    if missing:
        raise DataError(
            f"'{recipe.pair.name}/{recipe.adapter.label}/{recipe.task.id}' needs what is not here:"
            + "".join(f"\n  - {line}" for line in missing),
            hint=f"Needs no download: {_without_download(recipe, inputs.data_dir, seed=seed)}",
        )
    for spec in recipe.backbones():
        if missing_weights(spec):
            weights_path(spec)


def _without_download(recipe: Recipe, data_dir: Path | None, *, seed: int) -> str:
    """A command that trains the adapter without any download, on the same images if they exist."""
    suite, place = suite_of(recipe.task), list[str]()
    task = suite.word(recipe.task)
    if suite.missing(recipe.task, data_dir, seed=seed):
        task = "digits"
    elif data_dir is not None:
        place = ["--data-dir", str(data_dir)]
    pair = [] if task == "digits" else ["--pair", "micro"]
    adapter = ["--adapter", recipe.adapter.word]
    words = ["--task", task, *place, *pair, *adapter, *recipe.plugin_words]
    return shlex.join(["idat", "train", *words])
