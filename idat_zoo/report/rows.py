"""Results of one recipe with several seeds -> one row of a report."""

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
from idat_zoo.recipe import Frozen, Scalar
from idat_zoo.report.fields import Fields, ReadOptions, class_options, flatten, label, telling
from idat_zoo.results import RawPixels, Result
from idat_zoo.standing import Baseline, are_too_few, compare

Over = Literal["images", "seeds"]
"""What an interval covers: other test images, or other seeds on these test images."""


class Estimate(Frozen):
    """A top-1 with its 95 % interval, fractions; of several seeds the mean and its deviation.

    The interval is Wilson's over the test images, at the mean. Where several seeds lie further
    apart than that, it is Student's of the mean over seeds: the wider of the two. `over` says
    which. So seeds that happen to agree never make a number more certain than its images do.
    """

    mean: float
    sd: float | None = None
    interval: Interval
    over: Over


class Chosen(Frozen):
    """What `selection = "val"` tried: how many candidates, and the chosen one of each seed."""

    candidates: int
    values: tuple[dict[str, Scalar], ...]


class Row(Frozen):
    """One recipe on one task, over its seeds. `label` is what sets it apart in this report.

    `diverged` are the seeds whose training did.
    """

    task: str
    label: dict[str, Scalar]
    recipe_hash: str
    seeds: tuple[int, ...]
    top1: Estimate
    top1_best_on_test: float | None = None
    teacher_top1: Estimate | None = None
    selection: Chosen | None = None
    baselines: tuple[Baseline, ...] = ()
    raw_pixels: RawPixels | None = None
    images: int
    too_few_images: bool
    diverged: tuple[int, ...] = ()
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


def group_results(
    found: Iterable[tuple[Path, Result]], read_options: ReadOptions = class_options
) -> tuple[list[Group], list[str]]:
    """Groups in order of first appearance, and notes on seeds that are there twice.

    Of a seed that is there twice, the result that finished last counts.
    """
    together: dict[tuple[Scalar, ...], dict[int, list[tuple[Path, Result]]]] = {}
    for path, result in found:
        fields = flatten(result, read_options)
        key = (result.recipe_hash, fields["kind"], fields["network"], result.data_fingerprint)
        together.setdefault(key, defaultdict(list))[result.seed].append((path, result))
    groups, notes = [], []
    for seeds in together.values():
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
    """One row a group, in the order of the groups."""
    told = telling([group.fields for group in groups])
    return [_row(group, label(group.fields, told)) for group in groups]


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
    )


def estimate(seeds: Sequence[Metrics]) -> Estimate:
    """The top-1 of one recipe's seeds, all of the same test images."""
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
    """Wilson's at the mean of the seeds."""
    count = seeds[0].count
    return wilson_interval(statistics.fmean(round(one.top1 * count) for one in seeds), count)


def over_seeds(values: Sequence[float]) -> Interval:
    """Student's 95 % interval of the mean of two values or more; of equal ones it has no width."""
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    half = float(stdtrit(len(values) - 1, 0.975)) * sd / math.sqrt(len(values))
    return mean - half, mean + half


def wider(images: Interval, seeds: Interval) -> tuple[Interval, Over]:
    """The wider one, and what it covers."""
    if seeds[1] - seeds[0] > images[1] - images[0]:
        return seeds, "seeds"
    return images, "images"


def _chosen(results: Sequence[Result]) -> Chosen | None:
    selections = [result.selection for result in results if result.selection is not None]
    if not selections:
        return None
    return Chosen(
        candidates=len(selections[0].tried),
        values=tuple(selection.tried[selection.chosen].values for selection in selections),
    )


def _reached(results: Sequence[Result]) -> dict[str, float]:
    """The task's baselines; where versions of scikit-learn disagree, the higher one."""
    names = dict.fromkeys(name for result in results for name in result.reached)
    return {name: max(r.reached[name] for r in results if name in r.reached) for name in names}
