"""`idat report`: tables of many results, on the terminal, as Markdown or as JSON."""

import re
import shutil
import sys
import textwrap
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idat_zoo.cli.options import JsonOption, PluginOption, ShelfOption
from idat_zoo.cli.screen import note, print_json, print_table
from idat_zoo.errors import UsageError, ZooError

if TYPE_CHECKING:
    from idat_zoo.published_rows import PublishedRow
    from idat_zoo.report.cells import Section


LABEL_WIDTH = 24
"""Longer labels would leave no room for the numbers on a terminal of 80 columns."""
WRITTEN = re.compile(r"\s*\Z|\*\*\d+ results?, \d+ recipes?\*\*")
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
    format: FormatOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write it as Markdown, too.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write it as one HTML page, too, with figures (extra `report`).",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="METHOD",
            help="Of the page: compare with this method, by its name in the tables.",
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
    if reference is not None and html is None:
        raise UsageError("--reference belongs to --html, whose gains it is about.")
    if html is not None:
        _check_page(html)
    from idat_zoo.registry import averaged_tasks, load_registry
    from idat_zoo.report.build import build_report
    from idat_zoo.report.layout import lay_out
    from idat_zoo.report.markdown import as_markdown
    from idat_zoo.results import find_results

    registry = load_registry(shelf)
    found, averaged = find_results(runs), averaged_tasks(registry)
    built = build_report(
        found,
        averaged=averaged,
        published=None if against is None else _published(),
        read_options=registry.read_options,
    )
    if out is not None:
        _write(out, as_markdown(lay_out(built)))
    if html is not None:
        from idat_zoo.files import write_whole
        from idat_zoo.page.write import render_page, report_json
        from idat_zoo.report.build import sorted_groups

        groups, _ = sorted_groups(found, averaged, registry.read_options)
        page = render_page(
            built,
            groups,
            title=f"Report on {len(found)} result{'' if len(found) == 1 else 's'}",
            reference=reference,
            downloads={"report.json": report_json(built)},
        )
        write_whole(html, page.encode())
        note(f"wrote {html}")
    if json:
        print_json({"report": built.model_dump(mode="json", exclude_none=True)})
    elif format == Format.MARKDOWN:
        typer.echo(as_markdown(lay_out(built)), nl=False)
    else:
        print_sections(lay_out(built, label_width=LABEL_WIDTH))
        if sys.stdout.isatty():
            from idat_zoo.cli.plots import print_bars
            from idat_zoo.report.cells import as_words
            from idat_zoo.report.layout import name_recipes

            names = name_recipes(built, LABEL_WIDTH)
            print_bars(built.rows, [names[as_words(row.label)] for row in built.rows])


def _published() -> "list[PublishedRow]":
    from idat_zoo.registry.published import load_published

    return load_published()


def _check_page(file: Path) -> None:
    """Check what --html needs before anything is read.

    Raises: UsageError for a file that is there and no page of ours; ZooError without matplotlib.
    """
    from idat_zoo.page.libraries import check_libraries

    check_libraries()
    if file.exists() and PAGE not in file.read_text(errors="replace")[:1000]:
        raise UsageError(f"'{file}' is there, and is no report.", hint="Choose another --html.")


def _write(file: Path, text: str) -> None:
    from idat_zoo.files import write_whole

    try:
        before = file.read_text(errors="replace") if file.is_file() else ""
    except OSError as error:
        raise ZooError(f"cannot write '{file}': {error.strerror}") from None
    if not WRITTEN.match(before):
        raise UsageError(f"'{file}' is there, and is no report.", hint="Choose another --out.")
    write_whole(file, text.encode())
    note(f"wrote {file}")


def print_sections(sections: "list[Section]") -> None:
    """Print titles, tables and sentences; on a terminal, wrap sentences between words."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for number, section in enumerate(sections):
        if number:
            typer.echo()
        typer.secho(section.title, bold=True)
        if section.columns:
            print_table(section.columns, section.rows)
        for line in section.lines:
            typer.echo(textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False))
