"""The planning of a study: its runs' folders and passes, and the comparison with a stored plan."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from idat_zoo.backbones.pair import check_carried
from idat_zoo.engine.precision import resolve_precision
from idat_zoo.errors import RecipeError, RunFolderError, UsageError
from idat_zoo.outside import with_plugins
from idat_zoo.recipe import Recipe
from idat_zoo.runs.alike import cut_turns
from idat_zoo.runs.device_setup import DeviceSetup
from idat_zoo.runs.folder import run_folder, set_apart
from idat_zoo.runs.plan import Planned
from idat_zoo.runs.progress import Progress
from idat_zoo.study.design import Run, Study
from idat_zoo.study.plan import Entry, StudyPlan, has_plan, load_plan

NAMED = 2
"""The number of entries that a message names."""


def make_plan(study: Study, setup: DeviceSetup, *, data_dir: Path | None = None) -> StudyPlan:
    """The plan of a study for a device: the folder of each run, and the passes.

    Runs are grouped into passes as `idat train` groups them, by the stack of the setup. An adapter
    that the file names by `all` is left out where it does not fit the backbones.

    Raises: RecipeError for each recipe whose networks do not fit together.
    """
    faults: list[str] = []
    left_out: dict[str, None] = {}
    entries = []
    complete: dict[int, Recipe | None] = {}
    for run in study.runs:
        if id(run.recipe) not in complete:
            complete[id(run.recipe)] = _complete(run, study, setup.device, faults, left_out)
        recipe = complete[id(run.recipe)]
        if recipe is not None:
            folder = run_folder(Path(), recipe, run.seed).as_posix()
            fields = dict(run) | {"recipe": recipe, "folder": folder}
            entries.append(Entry.model_validate(fields))
    if faults:
        raise RecipeError(dict.fromkeys(faults))
    return StudyPlan(
        name=study.name,
        title=study.title,
        reference=study.reference,
        entries=tuple(entries),
        passes=tuple(_passes(entries, setup, data_dir)),
        stack=setup.stack,
        left_out=tuple(left_out),
    )


def _complete(
    run: Run, study: Study, device: torch.device, faults: list[str], left_out: dict[str, None]
) -> Recipe | None:
    """The recipe with the precision of the device; None if its networks do not fit together."""
    try:
        check_carried(run.recipe)
    except UsageError as error:
        if run.adapter in study.optional:
            left_out[error.message] = None
        else:
            faults.append(f"study '{study.name}': part {run.part}: {error.message}")
        return None
    return with_plugins(resolve_precision(run.recipe, device))


def _passes(
    entries: Sequence[Entry], setup: DeviceSetup, data_dir: Path | None
) -> Iterator[tuple[str, ...]]:
    """The folders of the runs in each pass."""
    runs = list({entry.folder: entry for entry in entries}.values())
    planned = [
        Planned(
            recipe=entry.recipe,
            seed=entry.seed,
            out=Path(),
            folder=Path(entry.folder),
            finished=False,
            missing=(),
        )
        for entry in runs
    ]
    positions = list(range(len(planned)))
    for turn in cut_turns(planned, positions, setup, Progress(), data_dir=data_dir):
        yield tuple(runs[position].folder for position in turn)


def agreed_plan(fresh: StudyPlan, folder: Path, *, replan: bool) -> StudyPlan:
    """The stored plan of a study's folder, or the fresh one where none is stored.

    With `replan` it is the fresh one. Nothing is written.

    Raises: UsageError if the fresh plan has other runs than the stored one; RunFolderError if the
    stored one cannot be read.
    """
    if not has_plan(folder) or replan:
        return fresh
    stored = load_plan(folder)
    if stored.name != fresh.name:
        raise RunFolderError(
            f"'{folder}' is the folder of study '{stored.name}', not of '{fresh.name}'.",
            hint="--out names another folder.",
        )
    changes = changes_between(stored, fresh)
    if changes:
        raise UsageError(
            f"study '{fresh.name}' is not as it was planned in '{folder}': {'; '.join(changes)}. "
            "Nothing was trained.",
            hint="--replan makes the plan anew; runs that are unchanged and finished stay.",
        )
    return stored


def changes_between(stored: StudyPlan, fresh: StudyPlan) -> list[str]:
    """What a fresh plan has otherwise than the stored one, each in a few words."""
    before, now = ({_place(one): one for one in plan.entries} for plan in (stored, fresh))
    added = [str(entry) for place, entry in now.items() if place not in before]
    removed = [str(entry) for place, entry in before.items() if place not in now]
    changed = [
        f"{entry} ({', '.join(_differences(before[place], entry))})"
        for place, entry in now.items()
        if place in before and _computed(before[place]) != _computed(entry)
    ]
    lists = (("added", added), ("removed", removed), ("changed", changed))
    told = [f"{word} {_some(entries)}" for word, entries in lists if entries]
    told += [
        f"{name} is '{getattr(fresh, name)}', and was '{getattr(stored, name)}'"
        for name in ("title", "reference")
        if getattr(fresh, name) != getattr(stored, name)
    ]
    if fresh.stack is not None and fresh.stack != stored.stack:
        was = "not given" if stored.stack is None else str(stored.stack)
        told.append(f"--stack is {fresh.stack}, and was {was}")
    return told


def _place(entry: Entry) -> tuple[object, ...]:
    values = tuple(sorted(entry.values.items()))
    return (entry.task, entry.adapter, entry.arm, entry.seed, values)


def _computed(entry: Entry) -> tuple[str, str]:
    """What decides the numbers of an entry; the hash in the folder stands for the recipe."""
    return entry.folder, entry.metric


def _differences(before: Entry, now: Entry) -> list[str]:
    if before.metric != now.metric:
        return [f"metric = {before.metric} (asked for: {now.metric})"]
    return set_apart(before.recipe, now.recipe) or ["its hash"]


def _some(entries: Sequence[str]) -> str:
    """`3 runs (A; B; …)`."""
    more = ["…"] if len(entries) > NAMED else []
    count = "1 run" if len(entries) == 1 else f"{len(entries)} runs"
    return f"{count} ({'; '.join([*entries[:NAMED], *more])})"
