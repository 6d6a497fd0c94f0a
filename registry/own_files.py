"""Recipes whose backbones have weights from files of the user's own."""

from collections.abc import Mapping
from pathlib import Path

from idat_zoo.errors import UsageError
from idat_zoo.own_weights import with_files
from idat_zoo.recipe import Recipe


def with_own_weights(recipe: Recipe, paths: Mapping[str, Path | str]) -> Recipe:
    """The recipe with weights from files, by role: `student` or `teacher`.

    The backbone keeps its name, size and normalisation. Its licence is that of the released
    weights, so it is not kept.

    Raises: UsageError for an unknown role, or a teacher where there is none; WeightsError for a
    file that cannot be read or is of another format.
    """
    pair = recipe.pair
    if "teacher" in paths and pair.teacher is None:
        raise UsageError("weights of a teacher are given, but the recipe has no teacher.")
    changed = {
        role: getattr(pair, role).model_copy(update={"weights": weights, "licence": ""})
        for role, weights in with_files(paths).items()
    }
    return (
        recipe.model_copy(update={"pair": pair.model_copy(update=changed)}) if changed else recipe
    )
