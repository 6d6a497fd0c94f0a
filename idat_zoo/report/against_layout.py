"""Layout of published rows beside ours."""

from collections.abc import Iterator, Sequence

from idat_zoo.data.suites import load_suite
from idat_zoo.report.against import AgainstPublished, Beside, OurRow, Setup, TheirRow
from idat_zoo.report.cells import Names, Section, as_words, percent, table_section
from idat_zoo.report.inflation_layout import lay_out_inflation, trained

RULES = {
    None: "not established",
    "last": "last epoch",
    "val": "last epoch, tuned on val200",
    "ensemble": "ensemble of candidates",
    "best_on_test": "best on test",
}
PARTS = {"selection": "selection rule"}
MOST_COLUMNS = 8
"""Tasks side by side; more of them are split into tables by group."""


def lay_out_against(against: AgainstPublished, names: Names) -> list[Section]:
    """The sections of published rows: what they rest on, their numbers, and the inflation."""
    sections = []
    for one in against.beside:
        sections += [_theirs(one), *_numbers(one, names)]
    ours = {task for one in against.beside for task in one.tasks}
    for inflation in against.inflation:
        sections += lay_out_inflation(inflation, ours)
    if against.unpublished:
        suites = ", ".join(load_suite(suite).title for suite in against.suites)
        line = f"None of {', '.join(against.unpublished)}: published rows are of {suites} alone."
        sections.append(Section(title="Published rows of other tasks", lines=(line,)))
    return sections


def _theirs(one: Beside) -> Section:
    """What each published row rests on, and why it does not compare."""
    setup = one.setup
    copies = dict.fromkeys(copy for ours in one.ours for copy in ours.data_copies)
    fit = sum(row.compares for row in one.theirs)
    columns = {
        "published": [row.name for row in one.theirs],
        "trained M": [trained(row.trained_millions) for row in one.theirs],
        "weights": [row.weights or "" for row in one.theirs],
        "normalisation": [row.normalisation or "" for row in one.theirs],
        "selection": [RULES[row.selection] if row.selection else "" for row in one.theirs],
        "data copy": [row.data_copy or "" for row in one.theirs],
        "comparable": [_comparable(row) for row in one.theirs],
    }
    lines = [
        f"Ours: {setup.backbone}, {_in_words(setup)}; data copy: "
        f"{', '.join(copies) or 'not recorded'}.",
        f"{fit} of {len(one.theirs)} published rows {'has' if fit == 1 else 'have'} the same. The "
        "copy of the images is not asked: it moves numbers too, and is seldom established.",
        "–: not established. What settings were tried, and with how many seeds, is seldom known.",
    ]
    title = f"Published rows of {load_suite(one.suite).title} beside ours ({_in_words(setup)})"
    return table_section(title, columns, lines)


def _in_words(setup: Setup) -> str:
    """`augreg_in21k, normalisation 0.5, last epoch`."""
    kind, _, digest = setup.weights.partition(":")
    weights = f"{kind}:{digest[:8]}" if kind == "file" else setup.weights
    return f"{weights}, normalisation {setup.normalisation}, {RULES[setup.selection]}"


def _comparable(row: TheirRow) -> str:
    """`yes`, or `no: other weights, other normalisation; selection rule not established`."""
    other = [f"other {PARTS.get(name, name)}" for name in row.differs_in]
    unknown = [PARTS.get(name, name) for name in row.not_established]
    reasons = [", ".join(other), f"{', '.join(unknown)} not established" if unknown else ""]
    return "yes" if row.compares else f"no: {'; '.join(filter(None, reasons))}"


def _numbers(one: Beside, names: Names) -> Iterator[Section]:
    """Top-1 of our rows and of theirs, a column for each task; the named means in the last one."""
    groups = one.groups if len(one.tasks) > MOST_COLUMNS else {"": one.tasks}
    means = tuple(dict.fromkeys(name for row in one.ours for name in row.means))
    for number, (group, tasks) in enumerate(groups.items(), start=1):
        named = means if number == len(groups) else ()
        yield Section(
            title=f"Top-1 % beside published rows{f', {group}' if group else ''} "
            f"({_in_words(one.setup)})",
            columns=("method", *tasks, *named),
            rows=(
                *(
                    _row(_ours(row, names), row, tasks, named)
                    for row in one.ours
                    if row.top1.keys() & set(tasks)
                ),
                *(_row(row.name, row, tasks, named) for row in one.theirs),
            ),
            lines=("In brackets: not comparable with ours, for the reasons above.",),
        )


def _ours(row: OurRow, names: Names) -> str:
    return f"ours: {names[as_words(row.label)]}" if row.label else "ours"


def _row(
    name: str, row: OurRow | TheirRow, tasks: Sequence[str], named: Sequence[str]
) -> tuple[str, ...]:
    cell = "({})" if isinstance(row, TheirRow) and not row.compares else "{}"
    values = [*map(row.top1.get, tasks), *map(row.means.get, named)]
    return (name, *("–" if v is None else cell.format(percent(v)) for v in values))
