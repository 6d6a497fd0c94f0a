"""The selection among a recipe's candidates by validation, `selection = "val"`.

Each candidate is trained on train800, and scored after its last epoch by top-1 on val200. The best
one is then trained again on all 1,000 images. Test images are not read. Candidates of several runs
can share passes, like runs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from idat_zoo import files
from idat_zoo.candidates import Values, combinations, with_values
from idat_zoo.errors import DataError, DivergedError, ZooError
from idat_zoo.logits import score_network
from idat_zoo.results import Candidate, Selection
from idat_zoo.runs.device_setup import DeviceSetup
from idat_zoo.runs.folder import SELECTION_FOLDER
from idat_zoo.runs.loaded import LoadedRun
from idat_zoo.runs.passes import train_all
from idat_zoo.runs.plan import Planned
from idat_zoo.runs.progress import Progress
from idat_zoo.runs.training import Training

SCORE_FILE = "val.json"


def select(
    runs: Sequence[LoadedRun], setup: DeviceSetup, progress: Progress
) -> list[Selection | ZooError]:
    """Train and score the candidates of runs; the selection of each run, or its error.

    The candidate with the best top-1 is chosen, the first of equal ones. Candidates that diverged
    rank last; if all of them diverged, that is the error. Every candidate has a folder below that
    of its run; its score is reused, or its training resumed, from there.
    """
    faults: dict[int, ZooError] = {}
    tried: list[tuple[int, Values]] = []
    trainings: list[Training] = []
    for position, run in enumerate(runs):
        recipe = run.planned.recipe
        if not len(run.views["student"].val):
            faults[position] = DataError(
                f"task '{recipe.task.id}' has no images to choose on: selection=none"
            )
            continue
        training = run.training("train")
        for folder, values in candidates(run.planned):
            if not (folder / SCORE_FILE).exists():
                tried.append((position, values))
                chosen = with_values(recipe, values)
                trainings.append(replace(training, recipe=chosen, folder=folder))
    for number, outcome in train_all(trainings, setup, progress, name="candidate"):
        position, values = tried[number]
        training = trainings[number]
        if isinstance(outcome, DivergedError):
            score = Candidate(values=values, val_top1=0.0, diverged=True)
        elif isinstance(outcome, ZooError):
            faults[position] = outcome
            continue
        else:
            val = runs[position].views["student"].val
            metrics = score_network(outcome.pair.student, val, training.recipe)
            diverged = outcome.divergence is not None
            score = Candidate(values=values, val_top1=metrics.top1, diverged=diverged)
        files.write_whole(
            training.folder / SCORE_FILE, files.dump_json(score.model_dump(mode="json"))
        )
    return [
        faults[position] if position in faults else _best(run.planned)
        for position, run in enumerate(runs)
    ]


def candidates(planned: Planned) -> Iterator[tuple[Path, Values]]:
    """Every combination of the candidates' values with its folder, in the recipe's order."""
    for number, values in enumerate(combinations(planned.recipe)):
        yield planned.folder / SELECTION_FOLDER / f"{number}", values


def _best(planned: Planned) -> Selection | DivergedError:
    tried = [
        Candidate.model_validate_json((folder / SCORE_FILE).read_bytes())
        for folder, _ in candidates(planned)
    ]
    if all(one.diverged for one in tried):
        return DivergedError(
            f"all {len(tried)} candidates diverged on the training images.",
            hint="Lower learning rates often help: candidates.lr=[1e-4,1e-3]",
        )
    tops = [one.val_top1 or 0.0 for one in tried]
    best = max(range(len(tried)), key=lambda i: (not tried[i].diverged, tops[i]))
    return Selection(tried=tuple(tried), chosen=best)
