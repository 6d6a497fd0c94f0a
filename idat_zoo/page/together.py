"""Controls and ensembles: methods with a second network, and the answer of both together."""

import statistics
from collections.abc import Sequence

from idat_zoo.page.entries import Entry
from idat_zoo.recipe import Recipe
from idat_zoo.report.predictions import LOGIT_ENSEMBLE, read_classes
from idat_zoo.report.rows import Group
from idat_zoo.results import Result
from idat_zoo.values import Frozen


class Together(Frozen):
    """A method on a task, with what makes it a control or an ensemble, and top-1 as fractions.

    `ensemble` is the top-1 of both networks together: of the mean of their logits, or with a joint
    loss of their sum.
    """

    task: str
    method: str
    kind: str
    student: float
    teacher: float | None
    ensemble: float | None
    seeds: int


def build_together(entries: Sequence[Entry]) -> list[Together]:
    """The methods with two networks, or that are a control or an ensemble."""
    found = []
    for entry in entries:
        results = [result for _, result in entry.group.results]
        kind = kind_of(results[0].recipe)
        if kind:
            found.append(
                Together(
                    task=entry.task,
                    method=entry.method,
                    kind=kind,
                    student=entry.row.top1.mean,
                    teacher=_mean(results, "teacher"),
                    ensemble=_mean(results, "logit_ensemble") or _ensemble(entry.group),
                    seeds=len(results),
                )
            )
    return found


def kind_of(recipe: Recipe) -> str:
    """What a recipe is beside a student alone: `co-trained`, `offline teacher`, …; else ''."""
    if recipe.selection == "ensemble":
        return "ensemble of candidates"
    if recipe.offline_teachers:
        return "offline teacher"
    if recipe.pair.teacher is None:
        return ""
    if recipe.task_loss == "joint":
        return "joint loss"
    return "co-trained" if recipe.distils else "trained beside, no coupling"


def _mean(results: Sequence[Result], network: str) -> float | None:
    tops = [metrics.top1 for result in results if (metrics := getattr(result, network)) is not None]
    return statistics.fmean(tops) if len(tops) == len(results) else None


def _ensemble(group: Group) -> float | None:
    """The top-1 of the sum of both networks' logits, from the predictions beside the results."""
    tops = []
    for path, result in group.results:
        try:
            classes = read_classes(path, result)
        except ValueError:
            return None
        if LOGIT_ENSEMBLE not in classes:
            return None
        tops.append(float((classes[LOGIT_ENSEMBLE] == classes["target"]).mean()))
    return statistics.fmean(tops)
