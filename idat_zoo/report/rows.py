"""Results of one recipe with several seeds -> one row of a report."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scipy.special import stdtrit

from idat_zoo.recipe import Frozen, Scalar
from idat_zoo.report.fields import Fields, flatten, label, telling
from idat_zoo.results import Result

Interval = tuple[float, float]


class Estimate(Frozen):
    """A top-1 with its 95 % interval; fractions.

    One seed: Wilson's interval over the test images. Several: their mean, standard deviation, and
    Student's interval of the mean over seeds.
    """

    mean: float
    sd: float | None = None
    interval: Interval
    over: Literal["images", "seeds"]


class Baseline(Frozen):
    """What raw pixels reach without any network, and how the adapter compares."""

    name: str
    top1: float
    beaten: bool
    inside_interval: bool


class Chosen(Frozen):
    """What `selection = "val"` tried: how many candidates, and the chosen one of each seed."""

    candidates: int
    values: tuple[dict[str, Scalar], ...]


class Row(Frozen):
    """One recipe on one task, over its seeds. `label` is what sets it apart in this report."""

    task: str
    label: dict[str, Scalar]
    recipe_hash: str
    seeds: tuple[int, ...]
    top1: Estimate
    top1_best_on_test: float | None = None
    teacher_top1: Estimate | None = None
    selection: Chosen | None = None
    baselines: tuple[Baseline, ...] = ()
    adapter_parameters: int
    head_parameters: int


@dataclass(frozen=True)
class Group:
    """Results that may be averaged: one recipe, one kind, one data set; one result a seed."""

    fields: Fields
    results: tuple[tuple[Path, Result], ...]

    @property
    def task(self) -> str:
        """The task's id."""
        return str(self.fields["task"])

    def by_seed(self) -> dict[int, tuple[Path, Result]]:
        """Each seed's result and where it lies."""
        return {result.seed: (path, result) for path, result in self.results}


def group_results(found: Iterable[tuple[Path, Result]]) -> tuple[list[Group], list[str]]:
    """Groups in order of first appearance, and notes on seeds that are there twice.

    Of a seed that is there twice, the result that finished last counts.
    """
    together: dict[tuple[Scalar, ...], dict[int, list[tuple[Path, Result]]]] = {}
    for path, result in found:
        fields = flatten(result)
        key = (result.recipe_hash, fields["kind"], fields["network"], result.data_fingerprint)
        together.setdefault(key, defaultdict(list))[result.seed].append((path, result))
    groups, notes = [], []
    for seeds in together.values():
        kept = [max(same, key=lambda pair: pair[1].finished) for _, same in sorted(seeds.items())]
        groups.append(Group(fields=flatten(kept[0][1]), results=tuple(kept)))
        notes += [_note_repeated(same) for _, same in sorted(seeds.items()) if len(same) > 1]
    return groups, notes


def _note_repeated(same: Sequence[tuple[Path, Result]]) -> str:
    first = same[0][1]
    scores = sorted({f"{100 * result.top1:.2f}" for _, result in same})
    return (
        f"{first.label}, recipe {first.recipe_hash[:8]}, seed {first.seed} is there {len(same)} "
        f"times (top-1 {', '.join(scores)} %): the one that finished last counts"
    )


def build_rows(groups: Sequence[Group]) -> list[Row]:
    """One row a group, in the order of the groups."""
    told = telling([group.fields for group in groups])
    return [_row(group, label(group.fields, told)) for group in groups]


def _row(group: Group, shown: dict[str, Scalar]) -> Row:
    results = [result for _, result in group.results]
    first = results[0]
    top1 = _estimate([r.top1 for r in results], first.top1_interval)
    best = [r.top1_best_on_test for r in results if r.top1_best_on_test is not None]
    teachers = [r.teacher for r in results if r.teacher is not None]
    return Row(
        task=group.task,
        label=shown,
        recipe_hash=first.recipe_hash,
        seeds=tuple(result.seed for result in results),
        top1=top1,
        top1_best_on_test=statistics.fmean(best) if best else None,
        teacher_top1=_estimate([t.top1 for t in teachers], teachers[0].top1_interval)
        if teachers
        else None,
        selection=_chosen(results),
        baselines=_baselines(results, top1),
        adapter_parameters=first.parameters.adapter,
        head_parameters=first.parameters.head,
    )


def _estimate(values: Sequence[float], over_images: Interval) -> Estimate:
    if len(values) == 1:
        return Estimate(mean=values[0], interval=over_images, over="images")
    mean, sd, low, high = spread(values)
    return Estimate(mean=mean, sd=sd, interval=(max(0.0, low), min(1.0, high)), over="seeds")


def spread(values: Sequence[float]) -> tuple[float, float, float, float]:
    """Mean, sample standard deviation, and Student's 95 % interval of the mean; two or more."""
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    half = float(stdtrit(len(values) - 1, 0.975)) * sd / math.sqrt(len(values))
    return mean, sd, mean - half, mean + half


def _chosen(results: Sequence[Result]) -> Chosen | None:
    selections = [result.selection for result in results if result.selection is not None]
    if not selections:
        return None
    return Chosen(
        candidates=len(selections[0].tried),
        values=tuple(selection.tried[selection.chosen].values for selection in selections),
    )


def _baselines(results: Sequence[Result], top1: Estimate) -> tuple[Baseline, ...]:
    """The task's baselines; where versions of scikit-learn disagree, the higher one."""
    names = dict.fromkeys(name for result in results for name in result.baselines)
    low, high = top1.interval
    baselines = []
    for name in names:
        reached = max(r.baselines[name] for r in results if name in r.baselines)
        beaten, inside = top1.mean > reached, low <= reached <= high
        baselines.append(Baseline(name=name, top1=reached, beaten=beaten, inside_interval=inside))
    return tuple(baselines)
