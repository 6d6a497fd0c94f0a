"""The plan of runs: where each goes, whether it is finished, and what it still needs."""

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
    """One recipe with one seed: its folder below `out`, and whether that holds a result.

    The recipe is complete: its precision is the device's, and it names the plugins it needs.
    `missing` are the images and weights that are not here, each with the way to get it. Nothing is
    loaded yet.
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
    """Plan to train recipes, each with its seed, on a device; in the order they are asked for.

    Raises: InputError for what is no recipe or no seed; UsageError for a run that is asked for
    twice, and for a recipe that cannot be trained.
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
