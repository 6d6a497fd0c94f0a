"""Published rows beside ours: on the tasks that both have, and what keeps them from comparing.

Our rows are of one or more setups: backbone and weights of the student, normalisation, and the rule
by which the number was selected. A published row compares with rows of a setup if it agrees in all
four. What is not established agrees with nothing.
"""

from collections.abc import Iterator, Sequence

from idat_zoo.published_rows import PublishedRow
from idat_zoo.report.basis import normalisation_of, selection_rule, tested_backbone
from idat_zoo.report.benchmark import Averaged, Benchmark, benchmarks, named_means
from idat_zoo.report.fields import label, telling
from idat_zoo.report.inflation import Inflation, build_inflation
from idat_zoo.report.means import Series, differing_by_task, find_series, is_of
from idat_zoo.report.rows import Group, Row
from idat_zoo.values import Frozen, Scalar

BEST_ON_TEST = "best_on_test"


class Setup(Frozen):
    """What our numbers rest on, beside the method. What is None is not known."""

    backbone: str
    weights: str
    normalisation: str
    selection: str | None


class OurRow(Frozen):
    """One of our methods: its label among the recipes of the report, and its top-1 by task.

    `means` are the named ones, as in `TheirRow`: there are some where no task is missing.
    """

    label: dict[str, Scalar]
    top1: dict[str, float]
    means: dict[str, float]
    data_copies: tuple[str, ...]


class TheirRow(Frozen):
    """A published row on our tasks.

    `differs_in` and `not_established` name the parts of a setup in which it is not ours; it
    compares with our rows if both are empty.
    """

    name: str
    source: str
    trained_millions: tuple[float, float]
    backbone: str
    weights: str | None
    normalisation: str | None
    selection: str | None
    data_copy: str | None
    top1: dict[str, float]
    means: dict[str, float]
    differs_in: tuple[str, ...]
    not_established: tuple[str, ...]

    @property
    def compares(self) -> bool:
        """Whether its numbers may be compared with those of the setup."""
        return not self.differs_in and not self.not_established


class Beside(Frozen):
    """Our rows of one setup and the published rows; `groups` has our tasks of the suite."""

    suite: str
    setup: Setup
    groups: dict[str, tuple[str, ...]]
    ours: tuple[OurRow, ...]
    theirs: tuple[TheirRow, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Our tasks of the suite, in its order."""
        return tuple(task for tasks in self.groups.values() for task in tasks)


class AgainstPublished(Frozen):
    """A report's rows against published ones.

    `suites` are those that published rows are of, and `unpublished` our tasks without any.
    `inflation` says what selecting the epoch on test adds in published runs; it is empty where no
    task is theirs.
    """

    suites: tuple[str, ...]
    beside: tuple[Beside, ...]
    unpublished: tuple[str, ...]
    inflation: tuple[Inflation, ...]


def build_against(
    groups: Sequence[Group],
    rows: Sequence[Row],
    averaged: Averaged,
    published: Sequence[PublishedRow],
) -> AgainstPublished:
    """Our groups with their rows, against published rows, over the tasks in `averaged`."""
    told = telling([group.fields for group in groups])
    pairs = list(zip(groups, rows, strict=True))
    beside: list[Beside] = []
    for benchmark in benchmarks(averaged):
        theirs = [row for row in published if row.suite == benchmark.suite]
        ours = [pair for pair in pairs if is_of(pair[0], benchmark)]
        if ours and theirs:
            beside += _by_setup(benchmark, ours, theirs, told)
    beside_ours = {one.suite for one in beside}
    covered = {task for one in beside for task in one.tasks}
    return AgainstPublished(
        suites=tuple(dict.fromkeys(row.suite for row in published)),
        beside=tuple(beside),
        unpublished=tuple(dict.fromkeys(g.task for g in groups if g.task not in covered)),
        inflation=build_inflation([row for row in published if row.suite in beside_ours], averaged),
    )


def _by_setup(
    benchmark: Benchmark, pairs: Series, theirs: Sequence[PublishedRow], told: set[str]
) -> Iterator[Beside]:
    """One entry for each setup of our rows; rows with a best epoch on test are of two."""
    by_setup: dict[Setup, Series] = {}
    for group, row in pairs:
        for setup in _setups(group, row):
            by_setup.setdefault(setup, []).append((group, row))
    for setup, own in by_setup.items():
        present = {group.task for group, _ in own}
        groups = {
            name: tuple(task for task in tasks if task in present)
            for name, tasks in benchmark.groups.items()
        }
        yield Beside(
            suite=benchmark.suite,
            setup=setup,
            groups={name: tasks for name, tasks in groups.items() if tasks},
            ours=tuple(_ours(series, setup, told, benchmark) for series in find_series(own)),
            theirs=tuple(
                _theirs(row, setup, present, benchmark)
                for row in theirs
                if row.top1.keys() & present
            ),
        )


def _setups(group: Group, row: Row) -> Iterator[Setup]:
    first = group.results[0][1]
    tested = tested_backbone(first)
    setup = Setup(
        backbone=tested.timm,
        weights=tested.weights,
        normalisation=normalisation_of(first.recipe, tested),
        selection=selection_rule(first.recipe),
    )
    yield setup
    if row.top1_best_on_test is not None:
        yield setup.model_copy(update={"selection": BEST_ON_TEST})


def _ours(series: Series, setup: Setup, told: set[str], benchmark: Benchmark) -> OurRow:
    first, _ = series[0]
    varied = differing_by_task([group for group, _ in series])
    results = [result for group, _ in series for _, result in group.results]
    top1 = {group.task: _number(row, setup) for group, row in series}
    return OurRow(
        label=label(first.fields, told - varied.keys()),
        top1=top1,
        means=named_means(benchmark, top1),
        data_copies=tuple(dict.fromkeys(r.data_copy for r in results if r.data_copy is not None)),
    )


def _number(row: Row, setup: Setup) -> float:
    if setup.selection == BEST_ON_TEST and row.top1_best_on_test is not None:
        return row.top1_best_on_test
    return row.top1.mean


def _theirs(row: PublishedRow, setup: Setup, present: set[str], benchmark: Benchmark) -> TheirRow:
    pairs = {name: (getattr(row, name), own) for name, own in setup.model_dump().items()}
    unknown = [name for name, values in pairs.items() if None in values]
    top1 = {task: row.top1[task] for task in benchmark.tasks if task in row.top1.keys() & present}
    return TheirRow(
        name=row.name,
        source=row.source,
        trained_millions=row.trained_millions,
        backbone=row.backbone,
        weights=row.weights,
        normalisation=row.normalisation,
        selection=row.selection,
        data_copy=row.data_copy,
        top1=top1,
        means=named_means(benchmark, top1),
        differs_in=tuple(
            name for name, (own, other) in pairs.items() if name not in unknown and own != other
        ),
        not_established=tuple(unknown),
    )
