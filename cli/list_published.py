"""`idat list published`: per-task results that papers print or that others released."""

from typing import TYPE_CHECKING

from idat_zoo.cli.screen import GAP, end, note, print_json, print_table, width
from idat_zoo.cli.shelf_rows import Row, matches
from idat_zoo.errors import ZooError

if TYPE_CHECKING:
    from idat_zoo.published_rows import PublishedRow
    from idat_zoo.registry import Registry
    from idat_zoo.report.inflation import Inflation

TEXTS = ("weights", "normalisation", "selection", "data_copy")
"""What a row's number rests on; an empty cell is not established."""
LEFT_OUT_FIRST = ("data copy", "normalisation", "weights", "selection", "test adds", "trained M")
"""The columns that a narrow terminal does without, in this order."""


def list_published(registry: "Registry", glob: str | None, *, json: bool) -> None:
    """Print the rows whose names fit, and what selecting the epoch on test adds.

    `--json` has the top-1 of every task as well.

    Raises: typer.Exit where no name fits.
    """
    from idat_zoo.registry import averaged_tasks
    from idat_zoo.registry.published import load_published
    from idat_zoo.report.benchmark import Averaged, benchmark_of, named_means
    from idat_zoo.report.inflation import build_inflation

    averaged: Averaged = averaged_tasks(registry)
    every = load_published()
    shown = [row for row in every if matches(row.name, glob)]
    means = {row.name: named_means(benchmark_of(row.suite, averaged), row.top1) for row in shown}
    inflation = build_inflation(every, averaged)
    if json:
        rows = [_document(row, means[row.name]) for row in shown]
        print_json({"published": rows, "inflation": [one.model_dump() for one in inflation]})
    elif shown:
        _print(shown, means, inflation)
    if not shown:
        end(ZooError(f"no published match '{glob}'."))


def _document(row: "PublishedRow", means: dict[str, float]) -> Row:
    return {"name": row.name, "own": False, **row.model_dump(mode="json"), "means": means}


def _print(
    rows: "list[PublishedRow]",
    means: dict[str, dict[str, float]],
    inflation: "tuple[Inflation, ...]",
) -> None:
    from idat_zoo.report.cells import percent, points
    from idat_zoo.report.inflation_layout import inflation_in_words, trained

    named = dict.fromkeys(name for own in means.values() for name in own)
    last = next(reversed(named), "")
    adds = {
        f"{one.table}/{own.method}": points(own.means[last])
        for one in inflation
        for own in one.methods
        if last in own.means
    }
    columns = {
        "name": [row.name for row in rows],
        "trained M": [trained(row.trained_millions) for row in rows],
        **{key.replace("_", " "): [getattr(row, key) or "" for row in rows] for key in TEXTS},
        **{
            name: [
                percent(means[row.name][name]) if name in means[row.name] else "" for row in rows
            ]
            for name in named
        },
        "test adds": [adds.get(row.name, "") for row in rows],
    }
    left_out = _narrowed(columns)
    print_table(list(columns), list(zip(*columns.values(), strict=True)))
    if left_out:
        note(f"left out at this width: {', '.join(left_out)}; --json has them")
    note(f"test adds: to {last}, the best epoch on test in place of the last one; --json: by task")
    note("an empty cell: not established")
    for one in inflation:
        note(f"what it adds in {one.table}. {inflation_in_words(one)}")


def _narrowed(columns: dict[str, list[str]]) -> list[str]:
    """Take columns out until a row fits on one line of the terminal; the names of these."""
    left_out: list[str] = []
    for name in LEFT_OUT_FIRST:
        widths = [max(map(len, (head, *cells))) for head, cells in columns.items()]
        if sum(widths) + GAP * (len(widths) - 1) <= width():
            break
        del columns[name]
        left_out.append(name)
    return left_out
