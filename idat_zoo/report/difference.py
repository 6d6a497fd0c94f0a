"""The difference of two settings on one task, over seeds and test images at once.

Both settings are run with the same seeds and tested on the same images, so each seed and image has
a difference of -1, 0 or 1 in correctness. Its mean, the gain, varies with the choice of images and
with that of seeds. The two variances are estimated separately, as in a crossed two-way design
without replication, and added (Cameron, Gelbach and Miller, Journal of Business & Economic
Statistics 29 (2011), 238, with seeds and images as the two clusters).

Shape letters: S seeds, N images.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtr, stdtrit

from idat_zoo.intervals import Interval, paired_interval
from idat_zoo.values import Frozen


class Difference(Frozen):
    """A gain in top-1, a fraction, with its 95 % interval and two-sided p-value.

    `seeds` and `images` are the numbers of both. With one seed the interval covers other test
    images alone; with several it covers other seeds as well, if the seeds' variance is the same on
    all tasks over which it was pooled. `holm` is the p-value after Holm's correction over all
    comparisons of the study.
    """

    gain: float
    interval: Interval
    p: float
    holm: float = 1.0
    seeds: int
    images: int


def seed_variances(tasks: Sequence[np.ndarray]) -> tuple[float, int]:
    """The variance of a gain from seed to seed, pooled over tasks, and its degrees of freedom.

    `tasks` are differences `[S, N]`, one array a task. What the finite number of images adds to the
    spread of the seeds is subtracted; the variance is 0 if nothing remains. Tasks with one seed add
    nothing; without any other, the degrees of freedom are 0.
    """
    total, freedom = 0.0, 0
    for differences in tasks:
        seeds = len(differences)
        if seeds > 1:
            between = float(differences.mean(1).var(ddof=1))
            total += (seeds - 1) * (between - _interaction(differences) / differences.shape[1])
            freedom += seeds - 1
    return (max(0.0, total / freedom) if freedom else 0.0), freedom


def _interaction(differences: np.ndarray) -> float:
    """The variance of what neither the seed nor the image explains, of differences `[S, N]`."""
    by_seed = differences.mean(1, keepdims=True)
    by_image = differences.mean(0, keepdims=True)
    rest: np.ndarray = differences - by_seed - by_image + differences.mean()
    seeds, images = differences.shape
    variance: float = np.square(rest).sum() / ((seeds - 1) * (images - 1))
    return variance


def difference_of(differences: np.ndarray, *, seed_variance: float, freedom: int) -> Difference:
    """The gain of differences `[S, N]`, with the variance that `seed_variances` has pooled.

    Student's distribution has `freedom` degrees of freedom, or N - 1 with one seed. Where the two
    settings agree on every image with every seed, the interval is Tango's, which has a width.
    """
    seeds, images = differences.shape
    gain = float(differences.mean())
    if not differences.any():
        agreed = paired_interval(0, 0, images)
        return Difference(gain=0.0, interval=agreed, p=1.0, seeds=seeds, images=images)
    by_image = float(differences.mean(0).var(ddof=1)) / images
    error = math.sqrt(by_image + (seed_variance / seeds if seeds > 1 else 0.0))
    freedom = freedom if seeds > 1 else images - 1
    half = float(stdtrit(freedom, 0.975)) * error
    p = 2 * float(stdtr(freedom, -abs(gain) / error))
    return Difference(
        gain=gain, interval=(gain - half, gain + half), p=p, seeds=seeds, images=images
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values after Holm's correction, in their order.

    With it, the probability that any true null hypothesis among them is rejected at 0.05 is at most
    0.05 (Holm, Scandinavian Journal of Statistics 6 (1979), 65).
    """
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected
