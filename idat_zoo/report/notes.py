"""Notes of a report: doubts about test images, and differences that make comparisons unfair."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from idat_zoo.data.suites import load_suite
from idat_zoo.report.basis import differences, marks_of
from idat_zoo.report.means import SeriesMeans
from idat_zoo.report.rows import Group, Row
from idat_zoo.results import Result

UNEVEN = {
    "weights": "weights differ",
    "normalisation": "normalisations differ",
    "data": "images or labels differ, so rows of different data do not compare",
    "selection": "rules of selection differ",
    "tried settings": "numbers of tried settings differ",
    "seeds": "seeds differ",
}
"""The sentences on the parts of a basis in which rows differ; others are told of results."""


def build_notes(
    groups: Sequence[Group], rows: Sequence[Row], means: Sequence[SeriesMeans]
) -> list[str]:
    """One sentence for each doubt about images, and for each difference between compared results.

    Results are compared if they are of one task, or if they enter the means of one suite.
    """
    compared: dict[str, list[Result]] = defaultdict(list)
    for group in groups:
        compared[group.task] += [result for _, result in group.results]
    doubts = {task: list(_doubts(results)) for task, results in compared.items()}
    uneven: dict[str, list[str]] = {}
    for place, numbers in compared_rows(rows, means).items():
        results = [result for n in numbers for _, result in groups[n].results]
        one_task = place in compared
        bases = differences([rows[n].basis for n in numbers], one_task=one_task)
        uneven[place] = [
            *_unevenness(results, one_task=one_task),
            *(line for what in UNEVEN for line in _several(UNEVEN[what], bases.get(what, ()))),
        ]
    for suite, own in _by_suite(means).items():
        if len({series.tasks for series in own}) > 1:
            uneven[suite].append("they are over different tasks, so they do not compare")
    return [*_by_place(doubts), *_by_place(uneven)]


def mark_rows(rows: Sequence[Row], means: Sequence[SeriesMeans]) -> list[Row]:
    """The rows with their marks."""
    marks = marks_of(
        [row.basis for row in rows], compared_rows(rows, means), {row.task for row in rows}
    )
    return [row.model_copy(update={"marks": own}) for row, own in zip(rows, marks, strict=True)]


def compared_rows(rows: Sequence[Row], means: Sequence[SeriesMeans]) -> dict[str, list[int]]:
    """The numbers of the rows that are compared, by task and by the means that they enter."""
    found: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        found[row.task].append(number)
    for suite, own in _by_suite(means).items():
        averaged = {task for series in own for task in series.tasks}
        found[suite] = [number for number, row in enumerate(rows) if row.task in averaged]
    return found


def _by_suite(means: Iterable[SeriesMeans]) -> dict[str, list[SeriesMeans]]:
    by_suite: dict[str, list[SeriesMeans]] = defaultdict(list)
    for series in means:
        by_suite[f"the means over {load_suite(series.suite).title}"].append(series)
    return by_suite


def _by_place(notes: Mapping[str, Iterable[str]]) -> list[str]:
    """Each sentence once, preceded by the tasks or means that it is about."""
    where: dict[str, list[str]] = defaultdict(list)
    for place, sentences in notes.items():
        for sentence in sentences:
            where[sentence].append(place)
    return [f"{', '.join(places)}: {sentence}" for sentence, places in where.items()]


def _doubts(results: Iterable[Result]) -> Iterable[str]:
    """Known faults of the test images: some unreadable, some also among the training images."""
    counts = [result.images for result in results if result.images is not None]
    for unreadable in sorted({count.unreadable for count in counts} - {0}):
        yield f"{unreadable:,} of its images cannot be read and were left out"
    for seen, test in sorted({(c.test_in_training, c.test) for c in counts if c.test_in_training}):
        yield (
            f"{seen:,} of {test:,} test images have the same bytes as an image that was learnt from"
        )


def _unevenness(results: Sequence[Result], *, one_task: bool) -> Iterable[str]:
    yield from _several("devices differ", (r.device for r in results))
    packages = dict.fromkeys(name for r in results for name in r.versions)
    for package in packages:
        versions = (r.versions.get(package, "not recorded") for r in results)
        yield from _several(f"versions of {package} differ", versions)
    schemas = (str(result.schema_version) for result in results)
    yield from _several("schemas of results differ", schemas)
    for backbone, digests in _backbone_digests(results).items():
        yield from _several(f"the weights called {backbone} are not the same bytes", digests)
    if one_task:
        for name in dict.fromkeys(name for r in results for name in r.baselines):
            tops = (f"{100 * r.baselines[name]:.2f} %" for r in results if name in r.baselines)
            yield from _several(f"the baseline {name} differs, the higher one is shown", tops)


def _several(what: str, values: Iterable[str]) -> list[str]:
    found = sorted(set(values))
    return [f"{what} ({'; '.join(found)})"] if len(found) > 1 else []


def _backbone_digests(results: Iterable[Result]) -> Mapping[str, list[str]]:
    """Digests of the loaded weights, by the name of the backbone and its weights tag."""
    digests: dict[str, list[str]] = defaultdict(list)
    for result in results:
        pair = result.recipe.pair
        for role, backbone in (("student", pair.student), ("teacher", pair.teacher)):
            if backbone is not None and role in result.backbone_sha256:
                name = f"{backbone.name} {backbone.weights}"
                digests[name].append(result.backbone_sha256[role][:8])
    return digests
