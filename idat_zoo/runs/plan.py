"""The plan of runs: the folder of each, whether it is finished, and its missing inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from idat_zoo.engine.precision import resolve_precision
from idat_zoo.errors import InputError, UsageError
from idat_zoo.file_names import RESULT_FILE
from idat_zoo.outside import with_plugins
from idat_zoo.recipe import Recipe
from idat_zoo.runs.folder import run_folder
from idat_zoo.runs.inputs import Inputs, missing_inputs


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A run to be trained: one recipe with one seed, and its folder below `out`.

    The recipe is complete: its precision is resolved for the device, and it names the plugins that
    it needs. `finished` means that the folder holds a result. `missing` lists the images and
    weights that are not on this machine, each with the way to get it. Nothing is loaded yet.
    """

    recipe: Recipe
    seed: int
    out: Path
    folder: Path
    finished: bool
    missing: tuple[str, ...]


def plan(
    asked: Sequence[tuple[Recipe, int]], *, out: Path, device: torch.device, inputs: Inputs
) -> list[Planned]:
    """Plan the training of recipes, each with a seed, on a device, in the order of `asked`.

    Raises: InputError for an object that is no recipe, or an invalid seed; UsageError for a run
    that is given twice, or a recipe that cannot be trained.
    """
    planned = []
    for recipe, seed in asked:
        _check(recipe, seed)
        complete = with_plugins(resolve_precision(recipe, device))
        folder = run_folder(out, complete, seed)
        planned.append(
            Planned(
                recipe=complete,
                seed=seed,
                out=out,
                folder=folder,
                finished=(folder / RESULT_FILE).is_file(),
                missing=tuple(missing_inputs(complete, inputs, seed=seed)),
            )
        )
    folders = [one.folder for one in planned]
    twice = {str(folder) for folder in folders if folders.count(folder) > 1}
    if twice:
        raise UsageError(f"asked for twice: {', '.join(sorted(twice))}")
    return planned


def _check(recipe: object, seed: object) -> None:
    if not isinstance(recipe, Recipe):
        raise InputError(
            f"a run takes a Recipe; got {recipe!r}.",
            hint='get_recipe("digits", "lora") of idat_zoo.registry makes one',
        )
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise InputError(f"a seed is an int from 0; got {seed!r}.")
