"""Which runs can share a pass, and the division of a call's runs into turns."""

import math
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

from idat_zoo.adapters import build_adapter
from idat_zoo.adapters.sites import Site
from idat_zoo.data.suites import suite_of
from idat_zoo.distillation import find_term
from idat_zoo.distillation.base import Output
from idat_zoo.errors import ZooError
from idat_zoo.recipe import Recipe, Task
from idat_zoo.runs.device_setup import DeviceSetup
from idat_zoo.runs.folder import run_label
from idat_zoo.runs.plan import Planned
from idat_zoo.runs.progress import Progress


def stack_key(recipe: Recipe, images: Hashable) -> Hashable | None:
    """A key that is equal for trainings that can share a pass; None for one that never can.

    `images` is the number of training images, or what stands for it before they are loaded.
    """
    choices = [choice for choice in (recipe.adapter, recipe.teacher_adapter) if choice is not None]
    adapters = [build_adapter(choice) for choice in choices]
    if recipe.precision == "fp16" or not all(adapter.stackable for adapter in adapters):
        return None
    tokens = recipe.distils and Output.TOKENS in find_term(recipe.distillation.name).reads
    probes = any(adapter.sites == {Site.FEATURES} for adapter in adapters)
    return (
        recipe.pair.model_dump_json(),
        recipe.precision,
        recipe.teacher_mode,
        *(adapter.stack_key for adapter in adapters),
        images,
        recipe.batch_size,
        bool(recipe.augmentation),
        probes and (recipe.drop_path > 0, tokens),  # decide how much of the backbone never changes
    )


def grouped(keys: Sequence[Hashable | None]) -> list[list[int]]:
    """The positions of equal keys, in the order of the first of each; None equals no other."""
    alike: dict[Hashable, list[int]] = {}
    for position, key in enumerate(keys):
        alike.setdefault(position if key is None else key, []).append(position)
    return list(alike.values())


def evenly(positions: Sequence[int], most: int) -> Iterator[list[int]]:
    """The positions in as few parts of at most `most` as possible, all of nearly one size."""
    size = math.ceil(len(positions) / math.ceil(len(positions) / most))
    yield from (list(positions[i : i + size]) for i in range(0, len(positions), size))


def passes_in_words(trainings: int, most: int, *, runs: int | None = None) -> str:
    """`7 runs take 3 passes, 3 at most in each`, or `4 trainings of 1 run take 2 passes, …`.

    `runs` is their number where a run has several trainings: its candidates.
    """
    what = f"{trainings} runs"
    if runs is not None and runs != trainings:
        what = f"{trainings} trainings of {runs} run{'s' * (runs > 1)}"
    return f"{what} take {math.ceil(trainings / most)} passes, {most} at most in each"


def single_in_words(labels: Sequence[str]) -> str:
    """The note on runs that cannot share a pass with any other."""
    return f"cannot be stacked, so one after the other: {', '.join(labels)}"


def cut_turns(
    planned: Sequence[Planned],
    positions: Sequence[int],
    setup: DeviceSetup,
    progress: Progress,
    *,
    data_dir: Path | None,
) -> list[list[int]]:
    """The positions of planned runs in each turn: runs that are loaded and trained together.

    A turn is one run where each has a pass of its own, and otherwise runs that can share a pass, as
    many as one pass may hold. Finished runs count as well, so the turns depend on the call alone,
    and not on what an earlier process has finished: a run is resumed with the same others. On CUDA
    without `stack`, alike runs are spread over the worker processes.
    """
    if setup.one_at_a_time:
        return [[position] for position in positions]
    runs = [planned[position] for position in positions]
    counts: dict[Task, Hashable] = {}
    keys = [_key_before_loading(one.recipe, counts, data_dir) for one in runs]
    single = [run_label(one.recipe, one.seed) for one, k in zip(runs, keys, strict=True) if not k]
    if single and len(runs) > 1 and not all(one.finished for one in runs):
        progress.note(single_in_words(single))
    turns = []
    for alike in grouped(keys):
        most = min(setup.stack or math.ceil(len(alike) / setup.jobs), len(alike))
        if most < len(alike) and not all(runs[k].finished for k in alike):
            progress.note(passes_in_words(len(alike), most))
        turns += [[positions[k] for k in part] for part in evenly(alike, most)]
    return turns


def _key_before_loading(
    recipe: Recipe, counts: dict[Task, Hashable], data_dir: Path | None
) -> Hashable | None:
    """`stack_key` with the number of images that the suite knows, or with the task itself.

    None also for a finished run whose plugin is not here, and for a run that cannot be trained.
    """
    task = recipe.task
    try:
        if task not in counts:
            known = suite_of(task).num_images(task, data_dir)
            learnt = [known.get("train", 0), known.get("val", 0)]
            counts[task] = sum(learnt) if all(learnt) else task.id
        return stack_key(recipe, counts[task])
    except ZooError:
        return None
