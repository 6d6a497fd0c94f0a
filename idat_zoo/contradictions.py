"""Numbers of a result that cannot all be true, as after an edit by hand. Free of torch.

A result says most of its numbers more than once: top-1 beside its interval, the recall of each
class, and the confusions. Who changes one of them has to change the others.
"""

from collections.abc import Iterator

from idat_zoo.intervals import Interval, wilson_interval
from idat_zoo.metrics import Metrics

TOLERANCE = 1e-6


def find_contradiction(top1: float, interval: Interval, networks: dict[str, Metrics]) -> str:
    """The first contradiction in words, or ''.

    `top1` and `interval` are the result's own, which are those of the student among `networks`.
    """
    student = networks["student"]
    if not _agree(top1, student.top1):
        return f"top1 is {top1:.4f}, and {student.top1:.4f} among the student's metrics"
    if not all(map(_agree, interval, student.top1_interval)):
        return "top1_interval is another one than among the student's metrics"
    for name, metrics in networks.items():
        for fault in _faults(metrics):
            return f"the {name}'s {fault}"
    return ""


def _faults(metrics: Metrics) -> Iterator[str]:
    """What contradicts the top-1 and the number of images of one network."""
    top1, count = metrics.top1, metrics.count
    said = f"top1 is {top1:.4f}"
    if count < 1 or not 0 <= top1 <= 1 or not _agree(top1, round(top1 * count) / count):
        yield f"{said}, which is no share of {count} images"
        return
    correct = round(top1 * count)
    if not all(map(_agree, metrics.top1_interval, wilson_interval(correct, count))):
        yield f"{said}, and top1_interval is not of {correct} of {count} images"
    if metrics.per_class:
        images = sum(one.count for one in metrics.per_class)
        recalled = sum(one.recall * one.count for one in metrics.per_class)
        if images != count:
            yield f"count is {count}, and per_class has {images} images"
        elif not _agree(top1, recalled / count):
            yield f"{said}, and {recalled / count:.4f} by the recall of its classes"
    if metrics.confusion:
        right = sum(row[place] for place, row in enumerate(metrics.confusion))
        if right != correct:
            yield f"{said}, and {right / count:.4f} by its confusions"


def _agree(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE
