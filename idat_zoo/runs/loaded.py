"""A run whose images are loaded, so that it can be trained."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from idat_zoo import files
from idat_zoo.checkpoint.opened import Opened
from idat_zoo.data.folder import split_csv
from idat_zoo.data.suites import suite_of
from idat_zoo.data.task_data import TaskData
from idat_zoo.errors import DataError
from idat_zoo.file_names import RECIPE_FILE, SPLIT_FILE
from idat_zoo.recipe import Recipe
from idat_zoo.recipe_toml import dump_recipe
from idat_zoo.runs.inputs import Inputs, Views, load_teacher_views, load_views, require_inputs
from idat_zoo.runs.memory_errors import plain_memory_errors
from idat_zoo.runs.offline import check_offline_teachers, in_order
from idat_zoo.runs.plan import Planned
from idat_zoo.runs.training import Training


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """A planned run with its images at each network's input size, whose folder is locked.

    `still_ours` raises a RunFolderError if another process has taken over the folder. `cache` is
    the folder for what is computed from the images, such as baselines. `teachers` are the
    checkpoints of offline teachers, each with the images at its input size.
    """

    planned: Planned
    views: Views
    still_ours: Callable[[], None]
    cache: Path
    teachers: tuple[tuple[Opened, TaskData], ...] = ()

    @property
    def final_split(self) -> str:
        """The split of the run's last training: `train` if the val images are watched."""
        return "train" if self.planned.recipe.watch == "val" else "trainval"

    def training(self, split: str, recipe: Recipe | None = None) -> Training:
        """The training on a split (`train` or `trainval`), with the run's recipe or the given one.

        A given recipe is the run's own with the values of one candidate. Candidates, which are
        trained on `train`, are not watched on test.
        """
        every = [*self.views.values(), *(data for _, data in self.teachers)]
        splits = {id(data): getattr(data, split) for data in every}
        joined = {key: part.joined for key, part in splits.items()}  # one if sizes are equal
        student = self.views["student"]
        recipe = recipe or self.planned.recipe
        tested = recipe.protocol == "paper" or (recipe.watch == "test" and split == "trainval")
        return Training(
            recipe=recipe,
            seed=self.planned.seed,
            folder=self.planned.folder,
            images={role: joined[id(data)] for role, data in self.views.items()},
            targets=splits[id(student)].targets,
            data="".join(dict.fromkeys(data.fingerprint for data in every)),
            split=split,
            val=student.val if recipe.watch == "val" else None,
            test=student.test if tested else None,
            teachers=tuple((one, joined[id(data)]) for one, data in self.teachers),
            still_ours=self.still_ours,
        )


def load_run(
    planned: Planned, inputs: Inputs, still_ours: Callable[[], None] = lambda: None
) -> LoadedRun:
    """Read a run's images, and write its recipe into its folder, which reserves it for this run.

    Raises: DataError if images or weights are missing; WeightsError if a download fails;
    CheckpointError for other offline teachers than the recipe's, or none.
    """
    recipe = planned.recipe
    check_offline_teachers(recipe, inputs.teachers)
    require_inputs(recipe, inputs, seed=planned.seed)
    with plain_memory_errors(recipe):
        views = load_views(recipe, inputs, seed=planned.seed)
        taught = load_teacher_views(recipe, inputs, views, seed=planned.seed)
    if recipe.watch == "val" and not len(views["student"].val):
        raise DataError(
            f"task '{recipe.task.id}' has no val images to watch: watch=none or watch=test"
        )
    files.write_whole(planned.folder / RECIPE_FILE, dump_recipe(recipe).encode())
    listing = views["student"].listing
    if suite_of(recipe.task).is_split_here and listing is not None:
        files.write_whole(planned.folder / SPLIT_FILE, split_csv(listing))
    return LoadedRun(
        planned=planned,
        views=views,
        still_ours=still_ours,
        cache=inputs.reading.cache,
        teachers=tuple(zip(in_order(recipe, inputs.teachers), taught, strict=True)),
    )
