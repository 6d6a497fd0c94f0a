"""The comparison of a top-1 accuracy with baselines that need no network, and its reliability.

`idat train`, `eval`, `report`, cards and `--json` all use these functions for it.
"""

from collections.abc import Callable, Iterable, Mapping

from idat_zoo.intervals import Interval
from idat_zoo.values import Frozen

BASELINE_TITLES = {
    "chance": "chance",
    "majority_class": "the majority class",
    "logistic_regression": "raw-pixel logistic regression",
    "nearest_neighbour": "raw-pixel 1-nearest-neighbour",
}
TOO_CLOSE = "too close to call"
"""How every text says that a difference may be due to chance: 0 is in its interval."""
FEWEST_IMAGES = 30
WIDEST_INTERVAL = 0.2
"""Test images are too few if there are fewer, or if the interval is wider (as a fraction)."""


class Baseline(Frozen):
    """The top-1 of a method without a network, a fraction, and how a network's compares with it.

    If it is inside the network's interval, the difference may be due to chance.
    """

    name: str
    top1: float
    beaten: bool
    inside_interval: bool


class Standing(Frozen):
    """The baselines that a top-1 is compared with, and whether it rests on too few images."""

    baselines: tuple[Baseline, ...]
    too_few_images: bool


def compare(top1: float, interval: Interval, reached: Mapping[str, float]) -> tuple[Baseline, ...]:
    """Compare a top-1 with baselines; all are fractions."""
    low, high = interval
    return tuple(
        Baseline(name=name, top1=own, beaten=top1 > own, inside_interval=low <= own <= high)
        for name, own in reached.items()
    )


def are_too_few(count: int, over_images: Interval) -> bool:
    """Whether a top-1 over so many test images, with this interval over them, is unreliable."""
    low, high = over_images
    return count < FEWEST_IMAGES or high - low > WIDEST_INTERVAL


def in_words(top1: float, baselines: Iterable[Baseline], show: Callable[[float], str]) -> str:
    """`15.4 % is too close to call against chance (13.3 %), which is in its 95 % interval`."""
    parts: dict[str, list[str]] = {}
    for one in sorted(baselines, key=lambda own: own.inside_interval):
        clear = "beats" if one.beaten else "is below"
        verb = f"is {TOO_CLOSE} against" if one.inside_interval else clear
        named = f"{BASELINE_TITLES.get(one.name, one.name)} ({show(one.top1)})"
        parts.setdefault(verb, []).append(named)
    told = [
        f"{verb} {_listed(names)}" + (_inside(len(names)) if TOO_CLOSE in verb else "")
        for verb, names in parts.items()
    ]
    return f"{show(top1)} {'; '.join(told)}"


def too_few_in_words(count: int) -> str:
    """The remark on a top-1 that rests on too few images."""
    return f"rests on too few images: {count:,} for test"


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _inside(count: int) -> str:
    return f", which {'is' if count == 1 else 'are'} in its 95 % interval"
