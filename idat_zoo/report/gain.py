"""What the teacher brings: the student trained with it minus the student trained alone.

Two groups are compared where their recipes differ in nothing but the teacher and what belongs to
it. Each seed's two runs are compared on the same test images, one by one.
"""

import statistics
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np

from idat_zoo.intervals import Interval, paired_interval, unpaired_interval
from idat_zoo.recipe import Frozen, Scalar
from idat_zoo.report.fields import Fields, label, telling
from idat_zoo.report.predictions import paired_counts, read_predictions
from idat_zoo.report.rows import Group, Over, over_seeds, wider
from idat_zoo.results import Result

OF_THE_TEACHER = ("teacher", "teacher_adapter", "distillation")
OF_THE_TERM = ("distillation_weight", "temperature", "temperature_squared", "detach")


class SeedGain(Frozen):
    """One seed's gain in top-1, a fraction, with its 95 % interval over the test images.

    It is paired: of the images, `gained` are right with the teacher alone and `lost` without it
    alone. Where `unpaired` says why the runs cannot be paired, these are not known, and the
    interval is that of two runs on images of their own.
    """

    seed: int
    gain: float
    interval: Interval
    images: int
    gained: int | None = None
    lost: int | None = None
    unpaired: str = ""


class MeanGain(Frozen):
    """The mean of the seeds' gains and their standard deviation.

    The interval is the wider of Student's over seeds and that over the test images at the mean;
    `over` says which.
    """

    gain: float
    sd: float
    interval: Interval
    over: Over


class Gain(Frozen):
    """The teacher's gain on one task, seed by seed, and over seeds where there are several.

    `label` is that of the recipe with the teacher. `alone_in` lists seeds that only one of the two
    recipes has.
    """

    task: str
    label: dict[str, Scalar]
    seeds: tuple[SeedGain, ...]
    mean: MeanGain | None = None
    alone_in: tuple[int, ...] = ()


def build_gains(groups: Sequence[Group]) -> list[Gain]:
    """Every comparison that the groups allow, in the order of the groups with a teacher."""
    told = telling([group.fields for group in groups]) | {"teacher"}
    alone: dict[Hashable, list[Group]] = {}
    for group in groups:
        if group.fields["teacher"] == "none":
            alone.setdefault(_without_teacher(group.fields), []).append(group)
    return [
        _gain(group, other, label(group.fields, told))
        for group in groups
        if group.fields["teacher"] != "none"
        for other in alone.get(_without_teacher(group.fields), [])
        if group.by_seed().keys() & other.by_seed().keys()
    ]


def _without_teacher(fields: Fields) -> Hashable:
    """All that a recipe fixes but the teacher, the pair's name and what belongs to the teacher."""
    own = {"pair", *OF_THE_TEACHER, *OF_THE_TERM}
    return frozenset(
        (name, value)
        for name, value in fields.items()
        if name not in own and not name.startswith(("teacher.", "teacher_adapter."))
    )


def _gain(group: Group, alone: Group, shown: dict[str, Scalar]) -> Gain:
    taught, single = group.by_seed(), alone.by_seed()
    both = sorted(taught.keys() & single.keys())
    seeds = tuple(_seed_gain(seed, taught[seed], single[seed]) for seed in both)
    tops = [(taught[seed][1].top1, single[seed][1].top1) for seed in both]
    return Gain(
        task=group.task,
        label=shown,
        seeds=seeds,
        mean=_mean_gain(seeds, tops) if len(seeds) > 1 else None,
        alone_in=tuple(sorted(taught.keys() ^ single.keys())),
    )


def _mean_gain(seeds: Sequence[SeedGain], tops: Sequence[tuple[float, float]]) -> MeanGain:
    """`tops` are each seed's with its teacher and without."""
    gains = [seed.gain for seed in seeds]
    gained = [seed.gained for seed in seeds if seed.gained is not None]
    lost = [seed.lost for seed in seeds if seed.lost is not None]
    if len(gained) == len(seeds):
        means = statistics.fmean(gained), statistics.fmean(lost)
        over_images = paired_interval(*means, seeds[0].images)
    else:
        means = statistics.fmean(top for top, _ in tops), statistics.fmean(top for _, top in tops)
        over_images = unpaired_interval(*means, seeds[0].images)
    interval, over = wider(over_images, over_seeds(gains))
    return MeanGain(
        gain=statistics.fmean(gains), sd=statistics.stdev(gains), interval=interval, over=over
    )


def _seed_gain(seed: int, taught: tuple[Path, Result], alone: tuple[Path, Result]) -> SeedGain:
    """Paired where both runs' predictions are of the same images, else the plain difference."""
    try:
        first, second = read_predictions(*taught), read_predictions(*alone)
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
