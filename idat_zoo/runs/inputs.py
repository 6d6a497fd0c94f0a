"""The inputs of runs, images and backbone weights: what is missing of them, and reading them."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from idat_zoo.backbones.pair import Role
from idat_zoo.backbones.pinned import missing_weights, weights_path
from idat_zoo.data.arrays import Arrays
from idat_zoo.data.load import load_task
from idat_zoo.data.reading import Listener, Reading
from idat_zoo.data.suites import suite_of
from idat_zoo.data.task_data import TaskData
from idat_zoo.errors import DataError
from idat_zoo.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Where images and weights come from.

    `arrays` are images that a Python program holds; `download` allows fetching missing weights.
    """

    data_dir: Path | None = None
    arrays: Arrays | None = None
    reading: Reading = field(default_factory=Reading)
    download: bool = False
    listener: Listener = field(default_factory=Listener)


Views = Mapping[Role, TaskData]
"""The task's images at each network's input size; the same object where the sizes are equal."""


def load_views(recipe: Recipe, inputs: Inputs, *, seed: int) -> Views:
    """The recipe's task for each of its networks. Raises what `load_task` raises."""
    sizes: dict[Role, int] = {"student": recipe.pair.student.img_size}
    if recipe.pair.teacher is not None:
        sizes["teacher"] = recipe.pair.teacher.img_size
    at_size = {
        size: load_task(
            recipe.task,
            img_size=size,
            data_dir=inputs.data_dir,
            seed=seed,
            reading=inputs.reading,
            listener=inputs.listener,
            arrays=inputs.arrays,
        )
        for size in dict.fromkeys(sizes.values())
    }
    return {role: at_size[size] for role, size in sizes.items()}


def missing_inputs(recipe: Recipe, inputs: Inputs, *, seed: int = 0) -> list[str]:
    """What a run needs and is not here, each with the way to get it."""
    missing = []
    suite = suite_of(recipe.task)
    images = suite.missing(recipe.task, inputs.data_dir, seed=seed)
    if images and inputs.arrays is None:
        sure = "--yes or " if suite.has_source else ""
        missing.append(f"{images}; {sure}{suite.how_to_get(recipe.task)}")
    if not inputs.download:
        repos = [missing_weights(spec) for spec in recipe.pair.backbones()]
        missing += [f"weights of '{r}'; --yes downloads them from the Hub" for r in repos if r]
    return missing


def require_inputs(recipe: Recipe, inputs: Inputs, *, seed: int) -> None:
    """Check that images and weights are here; fetch missing weights where `inputs` allow it.

    Raises: DataError naming at once all that is missing, with a command that needs nothing;
    WeightsError where a download fails.
    """
    missing = missing_inputs(recipe, inputs, seed=seed)
    if missing:
        raise DataError(
            f"'{recipe.pair.name}/{recipe.adapter.label}/{recipe.task.id}' needs what is not here:"
            + "".join(f"\n  - {line}" for line in missing),
            hint=f"Needs no download: {_without_download(recipe, inputs.data_dir, seed=seed)}",
        )
    for spec in recipe.pair.backbones():
        if missing_weights(spec):
            weights_path(spec)


def _without_download(recipe: Recipe, data_dir: Path | None, *, seed: int) -> str:
    """A command that trains the adapter without weights, on the same images if they are here."""
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
