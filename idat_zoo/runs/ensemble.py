"""The last trainings of runs: one of each run, and of an ensemble one for each member.

Every candidate of an ensemble is trained on all training images, and none is chosen. Members of
several runs can share passes, like runs. Each has a folder below that of its run, from which its
training is resumed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from idat_zoo.candidates import combinations, values_in_words, with_values
from idat_zoo.errors import DivergedError, ZooError
from idat_zoo.file_names import ENSEMBLE_FOLDER
from idat_zoo.recipe import Recipe
from idat_zoo.runs.alike import stack_key
from idat_zoo.runs.device_setup import DeviceSetup
from idat_zoo.runs.loaded import LoadedRun
from idat_zoo.runs.passes import train_all
from idat_zoo.runs.plan import Planned
from idat_zoo.runs.progress import Progress
from idat_zoo.runs.saved_state import diverged_before
from idat_zoo.runs.training import Trained, Training


def members(planned: Planned) -> Iterator[tuple[Path, Recipe]]:
    """The folder and the recipe of every member, in the order of the recipe's candidates."""
    for number, values in enumerate(combinations(planned.recipe)):
        folder = planned.folder / ENSEMBLE_FOLDER / f"{number}"
        yield folder, with_values(planned.recipe, values)


def has_diverged(planned: Planned) -> DivergedError | None:
    """The error of a run that was trained to its end and diverged, so that it has no result."""
    if planned.recipe.selection != "ensemble":
        return diverged_before(planned.folder, planned.recipe)
    faults = [diverged_before(folder, recipe) for folder, recipe in members(planned)]
    return _first_divergence(planned.recipe, faults)


def train_last(
    runs: Sequence[tuple[LoadedRun, Recipe]],
    setup: DeviceSetup,
    progress: Progress,
    *,
    name: str,
    keep_diverged: bool,
) -> Iterator[tuple[int, list[Trained] | ZooError]]:
    """Train each run by its recipe, which for a selection on val is that of the chosen candidate.

    Yields the position of a run as soon as its last training ends, with the outcome: one trained
    pair, or those of all members; or the error that ended one of them.
    """
    trainings: list[Training] = []
    owners: list[int] = []
    for position, (run, recipe) in enumerate(runs):
        own = [run.training(run.final_split, recipe)]
        if recipe.selection == "ensemble":
            own = [
                replace(run.training(run.final_split, member), folder=folder)
                for folder, member in members(run.planned)
            ]
            _tell_unlike(own, setup, progress)
        trainings += own
        owners += [position] * len(own)
    waiting = {position: owners.count(position) for position in owners}
    outcomes: dict[int, Trained | ZooError] = {}
    for number, outcome in train_all(trainings, setup, progress, name=name):
        outcomes[number] = outcome
        position = owners[number]
        waiting[position] -= 1
        if not waiting[position]:
            own_numbers = [k for k, owner in enumerate(owners) if owner == position]
            found = [outcomes.pop(k) for k in own_numbers]
            yield position, _whole(runs[position][1], found, keep_diverged=keep_diverged)


def _tell_unlike(own: Sequence[Training], setup: DeviceSetup, progress: Progress) -> None:
    """Tell which candidates cannot share a pass where others do."""
    if setup.one_at_a_time or len(own) == 1:
        return
    keys = [stack_key(one.recipe, len(one.targets)) for one in own]
    passes = len({key for key in keys if key is not None}) + keys.count(None)
    if passes > 1:
        progress.note(
            f"ensemble of {len(own)} on {own[0].recipe.task.id}: its candidates cannot all share a "
            f"pass, so they take {passes}, one after the other"
        )


def _whole(
    recipe: Recipe, found: Sequence[Trained | ZooError], *, keep_diverged: bool
) -> list[Trained] | ZooError:
    """The trained pairs of a run, or its error: of divergences only those that are not kept."""
    divergences: list[DivergedError | None] = []
    for one in found:
        if isinstance(one, Trained):
            divergences.append(None if keep_diverged else one.divergence)
        elif isinstance(one, DivergedError):
            divergences.append(one)
        else:
            return one
    first = _first_divergence(recipe, divergences)
    return first or [one for one in found if isinstance(one, Trained)]


def _first_divergence(
    recipe: Recipe, faults: Sequence[DivergedError | None]
) -> DivergedError | None:
    """The first error; for a member of an ensemble, it says which one."""
    kept = " --keep-diverged keeps the member, labelled; nothing is trained again."
    for number, fault in enumerate(faults):
        if fault is not None:
            if recipe.selection != "ensemble":
                return fault
            values = combinations(recipe)[number]
            return DivergedError(
                f"member {number + 1} of {len(faults)} of the ensemble "
                f"({values_in_words(values)}): {fault.message}",
                hint="Leave these values out of candidates."
                + kept * ("--keep-diverged" in fault.hint),
            )
    return None
