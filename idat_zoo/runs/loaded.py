"""A run whose images are read, ready to be trained."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from idat_zoo import files
from idat_zoo.data.folder import split_csv
from idat_zoo.data.suites import suite_of
from idat_zoo.file_names import RECIPE_FILE, SPLIT_FILE
from idat_zoo.recipe import Recipe
from idat_zoo.recipe_toml import dump_recipe
from idat_zoo.runs.inputs import Inputs, Views, load_views, require_inputs
from idat_zoo.runs.memory_errors import plain_memory_errors
from idat_zoo.runs.plan import Planned
from idat_zoo.runs.training import Training


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """A planned run, its images at each network's input size, and its claimed folder.

    `still_ours` raises a RunFolderError where another process has taken the folder over. `cache` is
    the folder in which what is computed from the images is kept.
    """

    planned: Planned
    views: Views
    still_ours: Callable[[], None]
    cache: Path

    def training(self, split: str, recipe: Recipe | None = None) -> Training:
        """The training on one of the splits: of the run's recipe, or of one made from it."""
        splits = {id(data): getattr(data, split) for data in self.views.values()}
        held = {key: part.held for key, part in splits.items()}  # once where sizes are equal
        student = self.views["student"]
        recipe = recipe or self.planned.recipe
        return Training(
            recipe=recipe,
            seed=self.planned.seed,
            folder=self.planned.folder,
            images={role: held[id(data)] for role, data in self.views.items()},
            targets=splits[id(student)].targets,
            data="".join(dict.fromkeys(data.fingerprint for data in self.views.values())),
            test=student.test if recipe.protocol == "paper" else None,
            still_ours=self.still_ours,
        )


def load_run(
    planned: Planned, inputs: Inputs, still_ours: Callable[[], None] = lambda: None
) -> LoadedRun:
    """Read a run's images and write its recipe into its folder, which claims the folder.

    Raises: DataError and WeightsError where something it needs is missing.
    """
    recipe = planned.recipe
    require_inputs(recipe, inputs, seed=planned.seed)
    with plain_memory_errors(recipe):
        views = load_views(recipe, inputs, seed=planned.seed)
    files.write_whole(planned.folder / RECIPE_FILE, dump_recipe(recipe).encode())
    listing = views["student"].listing
    if suite_of(recipe.task).is_split_here and listing is not None:
        files.write_whole(planned.folder / SPLIT_FILE, split_csv(listing))
    return LoadedRun(
        planned=planned, views=views, still_ours=still_ours, cache=inputs.reading.cache
    )
