"""Gains from the teacher: top-1 of the student trained with it, minus that of the student alone.

Two groups are compared if their recipes differ in nothing but the teacher and the settings that
belong to it. The two runs of each seed are compared image by image on the same test images.
"""

import statistics
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np

from idat_zoo.intervals import Interval, paired_interval, unpaired_interval
from idat_zoo.report.fields import Fields, label, telling
from idat_zoo.report.predictions import paired_counts, read_classes
from idat_zoo.report.rows import Group, Over, over_seeds, wider
from idat_zoo.results import Result
from idat_zoo.specs import OF_THE_TERM
from idat_zoo.values import Frozen, Scalar

OF_THE_TEACHER = ("teacher", "teacher_adapter", "distillation")
OFFLINE = ("teacher_mode", "teacher_sha256", "further_teachers")
BELOW = ("teacher.", "teacher_adapter.", "distillation.")


class SeedGain(Frozen):
    """The gain of one seed in top-1, a fraction, with its 95 % interval over the test images.

    `gained` counts the images that only the run with the teacher classifies correctly, `lost`
    those that only the run without it does. If the runs cannot be paired, `unpaired` says why, the
    two counts are None, and the interval is the one for two independent sets of images.
    """

    seed: int
    gain: float
    interval: Interval
    images: int
    gained: int | None = None
    lost: int | None = None
    unpaired: str = ""


class MeanGain(Frozen):
    """The mean gain over seeds, with the standard deviation of the gains.

    The interval is the wider of two: Student's over seeds, and the one over test images at the
    mean; `over` names which it is.
    """

    gain: float
    sd: float
    interval: Interval
    over: Over


class Gain(Frozen):
    """The gain from the teacher on one task: of each seed, and their mean if there are several.

    `label` is the label of the recipe with the teacher, and `row` the place of its row in the
    report. `alone_in` lists the seeds that only one of the two recipes was run with.
    """

    task: str
    label: dict[str, Scalar]
    row: int
    seeds: tuple[SeedGain, ...]
    mean: MeanGain | None = None
    alone_in: tuple[int, ...] = ()


def build_gains(groups: Sequence[Group]) -> list[Gain]:
    """Every possible comparison, in the order of the groups that have a teacher."""
    shown = telling([group.fields for group in groups]) | {"teacher"}
    alone: dict[Hashable, list[Group]] = {}
    for group in groups:
        if group.fields["teacher"] == "none":
            alone.setdefault(_without_teacher(group.fields), []).append(group)
    return [
        _gain(group, other, label(group.fields, shown), place)
        for place, group in enumerate(groups)
        if group.fields["teacher"] != "none"
        for other in alone.get(_without_teacher(group.fields), [])
        if group.by_seed().keys() & other.by_seed().keys()
    ]


def _without_teacher(fields: Fields) -> Hashable:
    """A recipe's fields without the teacher, its settings, and the name of the pair."""
    own = {"pair", *OF_THE_TEACHER, *OF_THE_TERM, *OFFLINE}
    return frozenset(
        (name, value)
        for name, value in fields.items()
        if name not in own and not name.startswith(BELOW)
    )


def _gain(group: Group, alone: Group, shown: dict[str, Scalar], place: int) -> Gain:
    taught, single = group.by_seed(), alone.by_seed()
    both = sorted(taught.keys() & single.keys())
    seeds = tuple(_seed_gain(seed, taught[seed], single[seed]) for seed in both)
    tops = [(taught[seed][1].top1, single[seed][1].top1) for seed in both]
    return Gain(
        task=group.task,
        label=shown,
        row=place,
        seeds=seeds,
        mean=_mean_gain(seeds, tops) if len(seeds) > 1 else None,
        alone_in=tuple(sorted(taught.keys() ^ single.keys())),
    )


def _mean_gain(seeds: Sequence[SeedGain], tops: Sequence[tuple[float, float]]) -> MeanGain:
    """The mean of gains; `tops` holds each seed's top-1 with its teacher and without."""
    gains = [seed.gain for seed in seeds]
    gained = [seed.gained for seed in seeds if seed.gained is not None]
    lost = [seed.lost for seed in seeds if seed.lost is not None]
    if len(gained) == len(seeds):
        means = statistics.fmean(gained), statistics.fmean(lost)
        over_images = paired_interval(*means, seeds[0].images)
    else:
        means = statistics.fmean(top for top, _ in tops), statistics.fmean(top for _, top in tops)
        over_images = unpaired_interval(*means, seeds[0].images)
    low, high = over_seeds(gains)
    interval, over = wider(over_images, (max(-1.0, low), min(1.0, high)))
    return MeanGain(
        gain=statistics.fmean(gains), sd=statistics.stdev(gains), interval=interval, over=over
    )


def _seed_gain(seed: int, taught: tuple[Path, Result], alone: tuple[Path, Result]) -> SeedGain:
    """The gain of one seed: paired if both runs predict the same images, else a difference."""
    try:
        first, second = read_classes(*taught), read_classes(*alone)
        if not all(np.array_equal(first[name], second[name]) for name in ("index", "target")):
            raise ValueError("the two runs were tested on different images")
    except ValueError as error:
        tops, images = (taught[1].top1, alone[1].top1), taught[1].student.count
        return SeedGain(
            seed=seed,
            gain=tops[0] - tops[1],
            interval=unpaired_interval(*tops, images),
            images=images,
            unpaired=str(error),
        )
    images = len(first["target"])
    gained, lost = paired_counts(first["student"], second["student"], first["target"])
    return SeedGain(
        seed=seed,
        gain=(gained - lost) / images,
        interval=paired_interval(gained, lost, images),
        images=images,
        gained=gained,
        lost=lost,
    )
