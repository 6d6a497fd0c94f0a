"""Rows of a report: the results of one recipe with all its seeds as one row."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scipy.special import stdtrit

from idat_zoo.intervals import Interval, wilson_interval
from idat_zoo.metrics import Metrics
from idat_zoo.report.basis import Basis, Mark, basis_of
from idat_zoo.report.changed_recipes import check_recipes
from idat_zoo.report.fields import (
    Fields,
    ReadOptions,
    class_options,
    flatten,
    label,
    network_of,
    telling,
)
from idat_zoo.results import RawPixels, Result
from idat_zoo.standing import Baseline, are_too_few, compare
from idat_zoo.values import Frozen, Scalar

Over = Literal["images", "seeds"]
"""What an interval accounts for: other test images, or other seeds on these images."""


class Estimate(Frozen):
    """The mean top-1 over seeds, their standard deviation, and a 95 % interval; all fractions.

    The interval is the wider of two, and `over` names which: Wilson's over the test images, at the
    mean, and Student's for the mean over seeds. So seeds that happen to agree never make a number
    look more certain than its test images allow.
    """

    mean: float
    sd: float | None = None
    interval: Interval
    over: Over


class SelectedValues(Frozen):
    """A selection: the number of candidates, and the values chosen on val200 for each seed.

    With `mode = "ensemble"` none was chosen, and `values` are those of all members.
    """

    mode: Literal["val", "ensemble"] = "val"
    candidates: int
    values: tuple[dict[str, Scalar], ...]


class Row(Frozen):
    """One recipe on one task, over its seeds.

    `label` holds the fields in which the recipe differs from others of the report. `basis` is what
    the number rests on, and `marks` the parts of it in which the row differs from rows that it is
    compared with. `diverged` lists the seeds whose training diverged. `peak_memory` is the
    largest of all seeds, in bytes, and None if it is unknown of one.
    """

    task: str
    label: dict[str, Scalar]
    recipe_hash: str
    seeds: tuple[int, ...]
    basis: Basis
    marks: tuple[Mark, ...] = ()
    top1: Estimate
    top1_best_on_test: float | None = None
    teacher_top1: Estimate | None = None
    selection: SelectedValues | None = None
    baselines: tuple[Baseline, ...] = ()
    raw_pixels: RawPixels | None = None
    images: int
    too_few_images: bool
    diverged: tuple[int, ...] = ()
    adapter_parameters: int
    head_parameters: int
    peak_memory: int | None = None


@dataclass(frozen=True)
class Group:
    """Results that may be averaged: same recipe, kind and data; one result for each seed."""

    fields: Fields
    results: tuple[tuple[Path, Result], ...]

    @property
    def task(self) -> str:
        """The task's id."""
        return str(self.fields["task"])

    def by_seed(self) -> dict[int, tuple[Path, Result]]:
        """The result of each seed, with the path of its file."""
        return {result.seed: (path, result) for path, result in self.results}


def group_results(
    found: Iterable[tuple[Path, Result]], read_options: ReadOptions = class_options
) -> tuple[list[Group], list[str]]:
    """Groups in order of first appearance, and notes about seeds with several results.

    If a seed has several results, the one that finished last counts.

    Raises: ZooError for a result whose recipe has another hash than it says.
    """
    together: dict[tuple[str, ...], dict[int, list[tuple[Path, Result]]]] = {}
    for path, result in found:
        key = (result.recipe_hash, result.kind, network_of(result), result.data_fingerprint)
        together.setdefault(key, defaultdict(list))[result.seed].append((path, result))
    groups, notes = [], []
    for seeds in together.values():
        check_recipes([pair for same in seeds.values() for pair in same], read_options)
        kept = [max(same, key=lambda pair: pair[1].finished) for _, same in sorted(seeds.items())]
        groups.append(Group(fields=flatten(kept[0][1], read_options), results=tuple(kept)))
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
    """One row for each group, in the order of the groups."""
    shown = telling([group.fields for group in groups])
    return [_row(group, label(group.fields, shown)) for group in groups]


def _row(group: Group, shown: dict[str, Scalar]) -> Row:
    results = [result for _, result in group.results]
    first = results[0]
    top1 = estimate([r.student for r in results])
    best = [r.top1_best_on_test for r in results if r.top1_best_on_test is not None]
    teachers = [r.teacher for r in results if r.teacher is not None]
    return Row(
        task=group.task,
        label=shown,
        recipe_hash=first.recipe_hash,
        seeds=tuple(result.seed for result in results),
        basis=basis_of(results),
        top1=top1,
        top1_best_on_test=statistics.fmean(best) if best else None,
        teacher_top1=estimate(teachers) if teachers else None,
        selection=_chosen(results),
        baselines=compare(top1.mean, top1.interval, _reached(results)),
        raw_pixels=first.raw_pixels,
        images=first.student.count,
        too_few_images=are_too_few(first.student.count, _over_images([r.student for r in results])),
        diverged=tuple(result.seed for result in results if result.diverged),
        adapter_parameters=first.parameters.adapter,
        head_parameters=first.parameters.head,
        peak_memory=largest(result.peak_memory for result in results),
    )


def largest(peaks: Iterable[int | None]) -> int | None:
    """The largest of all; None if one is unknown."""
    known = list(peaks)
    return None if None in known else max(one for one in known if one is not None)


def estimate(seeds: Sequence[Metrics]) -> Estimate:
    """The estimate of a recipe's top-1 from its seeds, all scored on the same test images."""
    tops = [metrics.top1 for metrics in seeds]
    over_images = _over_images(seeds)
    if len(tops) == 1:
        return Estimate(mean=tops[0], interval=over_images, over="images")
    low, high = over_seeds(tops)
    interval, over = wider(over_images, (max(0.0, low), min(1.0, high)))
    return Estimate(
        mean=statistics.fmean(tops), sd=statistics.stdev(tops), interval=interval, over=over
    )


def _over_images(seeds: Sequence[Metrics]) -> Interval:
    """Wilson's interval at the mean of the seeds."""
    count = seeds[0].count
    return wilson_interval(statistics.fmean(round(one.top1 * count) for one in seeds), count)


def over_seeds(values: Sequence[float]) -> Interval:
    """Student's 95 % interval for the mean of two or more values; zero width if all are equal."""
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    half = float(stdtrit(len(values) - 1, 0.975)) * sd / math.sqrt(len(values))
    return mean - half, mean + half


def wider(images: Interval, seeds: Interval) -> tuple[Interval, Over]:
    """The wider of two intervals, and what it accounts for."""
    if seeds[1] - seeds[0] > images[1] - images[0]:
        return seeds, "seeds"
    return images, "images"


def _chosen(results: Sequence[Result]) -> SelectedValues | None:
    selections = [result.selection for result in results if result.selection is not None]
    if not selections:
        return None
    first = selections[0]
    if first.mode == "ensemble":  # all seeds have the same members
        return SelectedValues(mode="ensemble", candidates=len(first.tried), values=first.values)
    return SelectedValues(
        candidates=len(first.tried),
        values=tuple(values for selection in selections for values in selection.values),
    )


def _reached(results: Sequence[Result]) -> dict[str, float]:
    """The baselines of the task; if versions of scikit-learn disagree, the higher value."""
    names = dict.fromkeys(name for result in results for name in result.reached)
    return {name: max(r.reached[name] for r in results if name in r.reached) for name in names}
