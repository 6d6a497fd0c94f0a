"""95 % intervals of proportions and of differences between proportions, by closed formulas."""

import math

Z95 = 1.959963984540054
BISECTIONS = 60  # halve an interval of 2 down to the last bit of a double

Interval = tuple[float, float]


def wilson_interval(correct: int | float, count: int) -> Interval:
    """The 95 % interval of a proportion (Wilson 1927), which stays inside [0, 1].

    `correct` counts successes among `count` trials; a mean over seeds need not be a whole number.
    """
    share, z2 = correct / count, Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    low = centre - half if correct else 0.0  # exact where rounding would leave the share outside
    high = centre + half if correct < count else 1.0
    return low, high


def paired_interval(gained: int | float, lost: int | float, count: int) -> Interval:
    """The 95 % interval of the difference between two accuracies on the same `count` images.

    `gained` counts the images that only the first network classifies correctly, `lost` those that
    only the second does; means over seeds need not be whole numbers. This is the score interval of
    Tango, Statistics in Medicine 17 (1998), 891: every difference that a score test does not
    reject. Two networks that never disagree have an interval of z^2 / (N + z^2) to each side, where
    the normal approximation would have no width.
    """
    difference = (gained - lost) / count

    def is_refused(other: float) -> bool:
        b = (2 * count - gained + lost) * other - gained - lost
        root = math.sqrt(max(b * b + 8 * count * lost * other * (1 - other), 0.0))
        lost_share = (root - b) / (4 * count)  # the likeliest, were that the difference
        variance = count * (2 * lost_share + other * (1 - other))
        return (gained - lost - count * other) ** 2 > Z95**2 * max(variance, 0.0)

    def end(refused: float) -> float:
        kept = difference
        for _ in range(BISECTIONS):
            middle = (kept + refused) / 2
            kept, refused = (kept, middle) if is_refused(middle) else (middle, refused)
        return refused

    return end(-1.0), end(1.0)


def unpaired_interval(first: float, second: float, count: int) -> Interval:
    """The 95 % interval of the difference between two accuracies, each on `count` other images.

    Computed from the two Wilson intervals: Newcombe, Statistics in Medicine 17 (1998), 873, method
    10. For accuracies on the same images it is wider than necessary.
    """
    low, high = wilson_interval(first * count, count)
    other_low, other_high = wilson_interval(second * count, count)
    difference = first - second
    return (
        difference - math.hypot(first - low, other_high - second),
        difference + math.hypot(high - first, second - other_low),
    )
