"""Building a report: results -> rows, means, gains and notes, as data."""

from collections.abc import Sequence
from pathlib import Path

from idat_zoo.published_rows import PublishedRow
from idat_zoo.report.against import AgainstPublished, build_against
from idat_zoo.report.benchmark import Averaged
from idat_zoo.report.cells import as_words
from idat_zoo.report.fields import PLAIN, Fields, ReadOptions, as_text, class_options
from idat_zoo.report.gain import Gain, build_gains
from idat_zoo.report.means import SeriesMeans, build_means
from idat_zoo.report.notes import build_notes, mark_rows
from idat_zoo.report.ranks import Ranks, average_ranks
from idat_zoo.report.rows import Group, Row, build_rows, group_results
from idat_zoo.result_files import named_runs, uncollected
from idat_zoo.results import Result
from idat_zoo.values import Frozen, Scalar


class Report(Frozen):
    """Many results as data. Accuracies are fractions.

    `shared` are the fields that all recipes have in common, except those of the task. `ranks` are
    those of the series of a suite, where there are enough, named by their labels in words.
    `published` has published rows beside ours, if they were asked for.
    """

    results: int
    recipes: int
    shared: dict[str, Scalar]
    rows: tuple[Row, ...]
    means: tuple[SeriesMeans, ...]
    ranks: dict[str, Ranks]
    gains: tuple[Gain, ...]
    notes: tuple[str, ...]
    published: AgainstPublished | None = None


@uncollected()
def build_report(
    found: Sequence[tuple[Path, Result]],
    *,
    averaged: Averaged | None = None,
    published: Sequence[PublishedRow] | None = None,
    unfinished: Sequence[Path] = (),
    read_options: ReadOptions = class_options,
) -> Report:
    """The report of results, each with the path of its result.json.

    Means are taken over the tasks in `averaged`; without it there are none. Where two runs are
    compared image by image, their predictions are read from the files beside result.json. Rows that
    others published are set beside those of their tasks. The folders of `unfinished` runs are named
    in a note.
    `read_options` fills in the defaults of adapter options; by default the adapter classes do,
    which loads torch.
    """
    averaged = averaged or {}
    groups, repeated = sorted_groups(found, averaged, read_options)
    rows = build_rows(groups)
    means = build_means(groups, rows, averaged)
    return Report(
        results=len(found),
        recipes=len({row.recipe_hash for row in rows}),
        shared=_shared([group.fields for group in groups]),
        rows=tuple(mark_rows(rows, means)),
        means=tuple(means),
        ranks=_ranks(means),
        gains=tuple(build_gains(groups)),
        notes=(*repeated, *_unfinished(unfinished), *build_notes(groups, rows, means)),
        published=None if published is None else build_against(groups, rows, averaged, published),
    )


def sorted_groups(
    found: Sequence[tuple[Path, Result]],
    averaged: Averaged,
    read_options: ReadOptions = class_options,
) -> tuple[list[Group], list[str]]:
    """The groups of results in the order of a report's rows, and notes about repeated seeds."""
    groups, repeated = group_results(found, read_options)
    places = [
        (suite, task)
        for suite, by_group in averaged.items()
        for tasks in by_group.values()
        for task in tasks
    ]
    return sorted(groups, key=lambda group: _place(group, places)), repeated


def _unfinished(folders: Sequence[Path]) -> list[str]:
    if not folders:
        return []
    are = "run is" if len(folders) == 1 else "runs are"
    return [f"{len(folders)} unfinished {are} not in it: {named_runs(folders)}"]


def _ranks(means: Sequence[SeriesMeans]) -> dict[str, Ranks]:
    """The ranks in each suite with enough series; series of the same label are told apart."""
    by_suite: dict[str, dict[str, dict[str, float]]] = {}
    for series in means:
        scores = by_suite.setdefault(series.suite, {})
        name = as_words(series.label)
        again = sum(other == name or other.startswith(f"{name} (") for other in scores)
        scores[f"{name} ({again + 1})" if again else name] = series.top1
    found = {suite: average_ranks(scores) for suite, scores in by_suite.items()}
    return {suite: ranks for suite, ranks in found.items() if ranks is not None}


def _place(group: Group, places: Sequence[tuple[str, str]]) -> tuple[int, str, tuple[str, ...]]:
    """The sort key of a group: other tasks first, then suites in order; never by path."""
    place = (str(group.fields["task.suite"]), group.task)
    number = places.index(place) + 1 if place in places else 0
    texts = tuple(f"{name}={as_text(value)}" for name, value in group.fields.items())
    return number, group.task, texts


def _shared(recipes: Sequence[Fields]) -> dict[str, Scalar]:
    return {
        name: value
        for name, value in recipes[0].items()
        if not name.startswith(("task", "data")) and name not in PLAIN
        if all(fields.get(name) == value for fields in recipes)
    }
