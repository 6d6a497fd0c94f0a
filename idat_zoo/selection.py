"""`selection = "val"`: which of a recipe's candidates is refitted on all images.

Each is trained on train800 and scored by its last epoch on val200. Test is not read. Candidates of
all runs are trained as any other runs are, so they may share passes.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from idat_zoo import files
from idat_zoo.data.task_data import Split
from idat_zoo.errors import DataError, DivergedError, ZooError
from idat_zoo.evaluation import score_network
from idat_zoo.fit import Job, Machine, Progress, fit
from idat_zoo.recipe import Recipe, Scalar, check_recipe
from idat_zoo.results import Candidate, Selection
from idat_zoo.run_folder import SELECTION_FOLDER

SCORE_FILE = "val.json"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A run with candidates: the job that trains one of them, and what they are scored on."""

    job: Job
    val: Split

    def settings(self) -> Iterator[tuple[Path, dict[str, Scalar]]]:
        """Every combination of the candidates' values, as they are written, and its folder."""
        candidates = self.job.recipe.candidates
        for number, values in enumerate(itertools.product(*candidates.values())):
            yield (
                self.job.folder / SELECTION_FOLDER / f"{number}",
                dict(zip(candidates, values, strict=True)),
            )


def select(
    choices: Sequence[Choice], machine: Machine, progress: Progress
) -> list[Selection | ZooError]:
    """The best candidate of each run (of equals the first), or the fault of one of them.

    One that diverged loses; it is a fault where all did.

    Every candidate has a folder below its run's, where it is resumed or reused.
    """
    todo: dict[Path, tuple[Choice, dict[str, Scalar]]] = {}
    faults: dict[Path, ZooError] = {}
    jobs: list[Job] = []
    for choice in choices:
        job = choice.job
        if not len(choice.val):
            faults[job.folder] = DataError(
                f"task '{job.recipe.task.id}' has no images to choose on: selection=none"
            )
            continue
        for place, values in choice.settings():
            if not (place / SCORE_FILE).exists():
                todo[place] = choice, values
                recipe = with_values(job.recipe, values)
                jobs.append(replace(job, recipe=recipe, folder=place))
    for job, outcome in fit(jobs, machine, progress, name="candidate"):
        choice, values = todo[job.folder]
        if isinstance(outcome, DivergedError):
            tried = Candidate(values=values, val_top1=0.0, diverged=True)
        elif isinstance(outcome, ZooError):
            faults[choice.job.folder] = outcome
            continue
        else:
            metrics = score_network(outcome.pair.student, choice.val, job.recipe)
            diverged = outcome.divergence is not None
            tried = Candidate(values=values, val_top1=metrics.top1, diverged=diverged)
        files.write_whole(job.folder / SCORE_FILE, files.dump_json(tried.model_dump(mode="json")))
    return [
        faults[choice.job.folder] if choice.job.folder in faults else _best(choice)
        for choice in choices
    ]


def _best(choice: Choice) -> Selection | DivergedError:
    tried = [
        Candidate.model_validate_json((place / SCORE_FILE).read_bytes())
        for place, _ in choice.settings()
    ]
    if all(one.diverged for one in tried):
        return DivergedError(
            f"all {len(tried)} candidates diverged on the training images.",
            hint="Lower learning rates often help: candidates.lr=[1e-4,1e-3]",
        )
    best = max(range(len(tried)), key=lambda i: (not tried[i].diverged, tried[i].val_top1))
    return Selection(tried=tuple(tried), chosen=best)


def with_values(recipe: Recipe, values: dict[str, Scalar]) -> Recipe:
    """The recipe with one setting in place of its candidates. `adapter.X` is an option of both."""
    fields = recipe.model_dump() | {"selection": "none", "candidates": {}}
    for name, value in values.items():
        role, _, option = name.rpartition(".")
        if role:
            fields[role]["options"][option] = value
        else:
            fields[name] = value
    return check_recipe(fields, where="candidates")
