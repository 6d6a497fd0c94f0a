"""A report as long CSV: one line for each task, method and metric, with what it rests on."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from idat_zoo.report.build import Report
from idat_zoo.report.cells import as_words
from idat_zoo.report.gain import Gain
from idat_zoo.report.rows import Estimate, Row

COLUMNS = (
    "task",
    "method",
    "metric",
    "value",
    "sd",
    "low",
    "high",
    "over",
    "seeds",
    "images",
    "recipe_hash",
    "weights",
    "normalisation",
    "data",
    "selection",
    "tried",
    "differs_in",
)
Cell = str | float | int | None
Line = Sequence[Cell]
NO_INTERVAL: Line = (None, None, None, None)
"""The cells `sd`, `low`, `high` and `over` of a number without an interval."""


def as_csv(report: Report) -> str:
    """All rows of a report. Accuracies and gains are fractions, `low` and `high` their interval."""
    gains: dict[int, list[Gain]] = {}
    for gain in report.gains:
        gains.setdefault(gain.row, []).append(gain)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for place, row in enumerate(report.rows):
        writer.writerows(_lines(row, gains.get(place, ())))
    return text.getvalue()


def _lines(row: Row, gains: Iterable[Gain]) -> Iterator[list[Cell]]:
    basis = row.basis
    rest: Line = (
        row.recipe_hash,
        basis.weights,
        basis.normalisation,
        basis.data,
        basis.selection,
        basis.tried,
        "; ".join(map(str, row.marks)),
    )
    method = as_words(row.label)
    for metric, numbers in _metrics(row):
        yield [row.task, method, metric, *numbers, _listed(row.seeds), row.images, *rest]
    for gain in gains:
        seeds = _listed(one.seed for one in gain.seeds)
        images = gain.seeds[0].images
        yield [row.task, method, "gain", *_of_gain(gain), seeds, images, *rest]


def _metrics(row: Row) -> Iterator[tuple[str, Line]]:
    """Each metric by name, with its value and the four cells of its interval."""
    yield "top1", _of_estimate(row.top1)
    if row.top1_best_on_test is not None:
        yield "top1_best_on_test", (row.top1_best_on_test, *NO_INTERVAL)
    if row.teacher_top1 is not None:
        yield "teacher_top1", _of_estimate(row.teacher_top1)
    for baseline in row.baselines:
        yield baseline.name, (baseline.top1, *NO_INTERVAL)
    yield "adapter_parameters", (row.adapter_parameters, *NO_INTERVAL)
    yield "head_parameters", (row.head_parameters, *NO_INTERVAL)
    if row.peak_memory is not None:
        yield "peak_memory", (row.peak_memory, *NO_INTERVAL)


def _of_estimate(estimate: Estimate) -> Line:
    return estimate.mean, estimate.sd, *estimate.interval, estimate.over


def _of_gain(gain: Gain) -> Line:
    """The mean gain over seeds, or the gain of the only one."""
    if gain.mean is not None:
        return gain.mean.gain, gain.mean.sd, *gain.mean.interval, gain.mean.over
    only = gain.seeds[0]
    return only.gain, None, *only.interval, "images"


def _listed(seeds: Iterable[int]) -> str:
    return " ".join(map(str, seeds))
