"""`idat report`: tables of many results, on the terminal and in other formats."""

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idat_zoo.cli.options import JsonOption, PluginOption, ShelfOption
from idat_zoo.cli.screen import json_text, note, print_json, print_table, wrapped
from idat_zoo.errors import UsageError, ZooError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from idat_zoo.published_rows import PublishedRow
    from idat_zoo.report.build import Report
    from idat_zoo.report.cells import Section
    from idat_zoo.report.rows import Group


LABEL_WIDTH = 24
"""Longer labels would leave no room for the numbers on a terminal of 80 columns."""
WRITTEN = re.compile(
    r"\s*\Z|\*\*\d+ results?, \d+ recipes?\*\*|% Made by idat report: |task,method,metric,value,"
    r'|\{\s*"schema_version": \d+,\s*"report": \{'
)
"""The beginning of a report that --out wrote; only such a file may be overwritten."""


class Against(StrEnum):
    """What our results can be set beside."""

    PUBLISHED = "published"


PAGE = '<meta name="generator" content="idat-zoo">'
"""What --html finds in a page that it may overwrite."""


class Format(StrEnum):
    """The format in which a report is printed."""

    TABLE = "table"
    MARKDOWN = "markdown"


class ReportFormat(StrEnum):
    """The format in which a report of many results is printed or written."""

    TABLE = "table"
    MARKDOWN = "markdown"
    CSV = "csv"
    LATEX = "latex"


JSON = "json"
ENDINGS = {
    ".md": ReportFormat.MARKDOWN,
    ".csv": ReportFormat.CSV,
    ".tex": ReportFormat.LATEX,
    ".json": JSON,
}
"""The format of a file by its ending."""
FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        metavar="|".join(Format),
        case_sensitive=False,
        help="How to print it; table unless said.",
    ),
]


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUNS…", help="Run folders, folders above them, or result.json."),
    ],
    format: Annotated[
        ReportFormat | None,
        typer.Option(
            "--format",
            metavar="|".join(ReportFormat),
            case_sensitive=False,
            help="How to print it; table unless said.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help=f"Write it, too, by its ending {', '.join(ENDINGS)}, or as --format says.",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write it as one HTML page, too, with figures (extra `report`).",
        ),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(
            "--png",
            metavar="DIR",
            help="With --html: the figures of the page as PNG files, too, in this folder.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="METHOD",
            help="With --html: compare with this method, by its name on the page.",
        ),
    ] = None,
    against: Annotated[
        Against | None,
        typer.Option(
            "--against",
            metavar="|".join(Against),
            case_sensitive=False,
            help="Published rows beside ours, task by task.",
        ),
    ] = None,
    shelf: ShelfOption = None,
    plugin: PluginOption = None,
    json: JsonOption = False,
) -> None:
    """Many results as tables: scores, intervals, the teacher's gain.

    Means have names, and what does not compare is said.
    """
    if json and format is not None:
        raise UsageError("--json and --format exclude each other", hint="Leave one of them out.")
    for option, value in (("--reference", reference), ("--png", png)):
        if value is not None and html is None:
            raise UsageError(f"{option} belongs to --html, which writes the page.")
    if out is not None:
        check_file(out, option="--out", ours=WRITTEN.match)
    if html is not None:
        check_page(html)
    if png is not None:
        from idat_zoo.files import check_place

        check_place(png / "figure.png", other="another --png")
    from idat_zoo.registry import averaged_tasks, load_registry
    from idat_zoo.report.build import build_report
    from idat_zoo.report.layout import lay_out
    from idat_zoo.result_files import find_unfinished
    from idat_zoo.results import find_results

    registry = load_registry(shelf)
    found = find_results(runs, by_class=html is not None)
    averaged = averaged_tasks(registry)
    built = build_report(
        found,
        averaged=averaged,
        published=None if against is None else _published(),
        unfinished=find_unfinished(runs),
        read_options=registry.read_options,
    )
    if out is not None:
        write_file(
            out, option="--out", text=_rendered(built, ENDINGS.get(out.suffix.lower()) or format)
        )
    if html is not None:
        from idat_zoo.report.build import sorted_groups

        groups, _ = sorted_groups(found, averaged, registry.read_options)
        _write_page(html, built, groups, reference=reference, png=png)
    if json:
        print_json(_document(built))
    elif format in (None, ReportFormat.TABLE):
        print_sections(lay_out(built, label_width=LABEL_WIDTH))
        if sys.stdout.isatty():
            from idat_zoo.cli.plots import print_bars
            from idat_zoo.report.cells import as_words
            from idat_zoo.report.layout import name_recipes

            names = name_recipes(built, LABEL_WIDTH)
            print_bars(built.rows, [names[as_words(row.label)] for row in built.rows])
    else:
        typer.echo(_rendered(built, format), nl=False)


def _rendered(built: "Report", format: str | None) -> str:
    """A report as text in a format; as Markdown unless it is another that files are written in."""
    from idat_zoo.report.csv_rows import as_csv
    from idat_zoo.report.latex import as_latex
    from idat_zoo.report.layout import lay_out
    from idat_zoo.report.markdown import as_markdown

    if format == ReportFormat.CSV:
        return as_csv(built)
    if format == ReportFormat.LATEX:
        return as_latex(built)
    return json_text(_document(built)) if format == JSON else as_markdown(lay_out(built))


def _document(built: "Report") -> dict[str, Any]:
    return {"report": built.model_dump(mode="json", exclude_none=True)}


def _published() -> "list[PublishedRow]":
    from idat_zoo.registry.published import load_published

    return load_published()


def check_page(file: Path) -> None:
    """Check what --html needs before anything is read.

    Raises: UsageError for a file that is there and no page of ours; RunFolderError for a place
    that cannot be written; ZooError without matplotlib.
    """
    from idat_zoo.page.libraries import check_libraries

    check_libraries()
    check_file(file, option="--html", ours=lambda text: PAGE in text[:1000])


def check_file(file: Path, *, option: str, ours: "Callable[[str], object]") -> None:
    """Check that a file can be written, and that one that is there is `ours`."""
    from idat_zoo.files import check_place

    check_place(file, other=f"another {option}")
    try:
        before = file.read_text(errors="replace") if file.is_file() else None
    except OSError as error:
        raise ZooError(f"cannot read '{file}': {error.strerror}") from None
    if before is not None and not ours(before):
        raise UsageError(f"'{file}' is there, and is no report.", hint=f"Choose another {option}.")


def write_file(file: Path, text: str, *, option: str) -> None:
    """Write a file that an option names, and say so."""
    from idat_zoo.files import write_whole

    write_whole(file, text.encode(), other=f"another {option}")
    note(f"wrote {file}")


def _write_page(
    file: Path,
    built: "Report",
    groups: "Sequence[Group]",
    *,
    reference: str | None,
    png: Path | None,
) -> None:
    from idat_zoo.files import write_whole
    from idat_zoo.page.write import build_page, schemes

    formats = {"json": JSON, "csv": ReportFormat.CSV, "tex": ReportFormat.LATEX}
    page, count = (
        build_page(built, groups, reference=reference),
        sum(len(g.results) for g in groups),
    )
    text = page.render(
        title=f"Report on {count} result{'' if count == 1 else 's'}",
        downloads={f"report.{end}": _rendered(built, one) for end, one in formats.items()},
    )
    write_file(file, text, option="--html")
    if png is None:
        return
    for figure in page.figures():  # saved as SVG before: their colours are changed now
        write_whole(
            png / f"{figure.name}.png", figure.png(schemes()["light"]), other="another --png"
        )
    note(f"wrote {len(page.figures())} figures into {png}")


def print_sections(sections: "list[Section]") -> None:
    """Print titles, tables and sentences; on a terminal, wrap sentences between words."""
    for number, section in enumerate(sections):
        if number:
            typer.echo()
        typer.secho(section.title, bold=True)
        if section.columns:
            print_table(section.columns, section.rows)
        for line in section.lines:
            typer.echo(wrapped(line))
