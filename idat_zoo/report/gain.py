"""What the teacher brings: the student trained with it minus the student trained alone.

Two groups are compared where their recipes differ in nothing but the teacher and what belongs to
it. Each seed's two runs are compared on the same test images, one by one.
"""

from collections.abc import Hashable, Sequence
from pathlib import Path

from torch import Tensor

from idat_zoo import files
from idat_zoo.metrics import paired_difference
from idat_zoo.recipe import Frozen, Scalar
from idat_zoo.report.fields import Fields, label, telling
from idat_zoo.report.rows import Group, Interval, spread
from idat_zoo.results import PREDICTIONS_FILE, Result

OF_THE_TEACHER = ("teacher", "teacher_adapter", "distillation")
OF_THE_TERM = ("distillation_weight", "temperature", "temperature_squared", "detach")


class SeedGain(Frozen):
    """One seed's gain in top-1, a fraction, with its paired 95 % interval over test images.

    Without an interval, `unpaired` says why the runs cannot be paired.
    """

    seed: int
    gain: float
    interval: Interval | None = None
    images: int
    unpaired: str = ""


class MeanGain(Frozen):
    """The mean of the seeds' gains, their standard deviation, and Student's interval over seeds."""

    gain: float
    sd: float
    interval: Interval


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
    return Gain(
        task=group.task,
        label=shown,
        seeds=seeds,
        mean=_mean_gain([seed.gain for seed in seeds]) if len(seeds) > 1 else None,
        alone_in=tuple(sorted(taught.keys() ^ single.keys())),
    )


def _mean_gain(gains: Sequence[float]) -> MeanGain:
    mean, sd, low, high = spread(gains)
    return MeanGain(gain=mean, sd=sd, interval=(low, high))


def _seed_gain(seed: int, taught: tuple[Path, Result], alone: tuple[Path, Result]) -> SeedGain:
    """Paired where both runs' predictions are of the same images, else the plain difference."""
    images = taught[1].student.count
    try:
        first, second = _predictions(*taught), _predictions(*alone)
        if not all(first[name].equal(second[name]) for name in ("index", "target")):
            raise ValueError("the two runs were tested on different images")
    except ValueError as error:
        plain = taught[1].top1 - alone[1].top1
        return SeedGain(seed=seed, gain=plain, images=images, unpaired=str(error))
    gain, low, high = paired_difference(first["student"], second["student"], first["target"])
    return SeedGain(seed=seed, gain=gain, interval=(low, high), images=images)


def _predictions(path: Path, result: Result) -> dict[str, Tensor]:
    """A run's index, target and student logits. Raises: ValueError saying why they are no use."""
    whose = f"the run with teacher {_teacher(result)}"
    file = path.with_name(PREDICTIONS_FILE)
    if not file.is_file():
        raise ValueError(f"{whose} has no {PREDICTIONS_FILE}")
    if files.sha256(file) != result.files.get(PREDICTIONS_FILE):
        raise ValueError(f"the {PREDICTIONS_FILE} of {whose} is not the one its result names")
    return files.parse_tensors(file.read_bytes())


def _teacher(result: Result) -> str:
    teacher = result.recipe.pair.teacher
    return "none" if teacher is None else teacher.name
