"""Layout of what selecting the epoch on test adds, and numbers of published rows as text."""

from collections.abc import Iterator, Sequence

from idat_zoo.report.cells import Section, points
from idat_zoo.report.inflation import Inflation


def lay_out_inflation(one: Inflation, ours: set[str]) -> Iterator[Section]:
    """What selecting the epoch on test adds: on our tasks over methods, and to each one's means."""
    by_task = [(task, own) for task, own in one.by_task.items() if task in ours]
    yield Section(
        title=f"What selecting the epoch on test adds, in points of top-1 ({one.table})",
        columns=("task", "mean", "most"),
        rows=tuple((task, points(own.mean), points(own.most)) for task, own in by_task),
        lines=(
            "The best of all epochs on test minus the last one, of the same runs "
            f"({one.source}): mean and most over {one.over} adapters.",
            inflation_in_words(one),
        ),
    )
    yield Section(
        title=f"The same of each method, in the means over all tasks ({one.table})",
        columns=("method", *one.means),
        rows=tuple(
            (own.method, *(points(own.means[name]) for name in one.means)) for own in one.methods
        ),
    )


def inflation_in_words(one: Inflation) -> str:
    """`In points, over 14 adapters: mean19 +0.65, mean3 +0.75; the most on dtd, +3.82.`"""
    means = ", ".join(f"{name} {points(value)}" for name, value in one.means.items())
    task, worst = max(one.by_task.items(), key=lambda pair: pair[1].mean)
    return (
        f"In points, over {one.over} adapters: {means}; the most on {task}, {points(worst.mean)}."
    )


def trained(millions: Sequence[float]) -> str:
    """A range in millions: `0.21–0.24`."""
    return "–".join(f"{end:.2f}" for end in dict.fromkeys(millions))
