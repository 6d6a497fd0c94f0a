"""Printing: results on stdout (JSON, CSV, tables), notes and errors on stderr."""

import csv
import io
import json
import os
import re
import shutil
import sys
import textwrap
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import typer

from idat_zoo.errors import PluginWarning, ZooError

if TYPE_CHECKING:
    from rich.console import Console

GAP = 2
"""The number of spaces between the columns of a table."""
WORD_ENDS = re.compile(r"\s+(?<!± )(?![kM](?:\s|$))")
"""The places where a cell may be wrapped: not inside `± 0.13` or `16.4 k`."""
UNKNOWN_WIDTH = 80
"""The characters of a line on a terminal that does not tell its width."""
SCHEMA_VERSION = 1
SOME_FAILED = 3
"""The exit code of a command that finished although some of its tasks failed."""


@contextmanager
def plugin_warnings_as_notes() -> Iterator[None]:
    """Print each warning about a plugin as a note, once; leave other warnings to Python."""
    show_as_usual = warnings.showwarning
    shown: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, PluginWarning):
            if str(message) not in shown:
                note(str(message))
            shown.add(str(message))
        else:
            show_as_usual(message, category, *rest, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", PluginWarning)
        warnings.showwarning = show
        yield


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON document on stdout, with its schema_version first."""
    text = json_text(document)
    typer.echo(text.encode(errors="backslashreplace"), nl=False)  # no UTF-8: JSON's own \udcff


def json_text(document: Mapping[str, Any]) -> str:
    """A JSON document with its schema_version first, as all commands print it."""
    whole = {"schema_version": SCHEMA_VERSION, **document}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def print_csv(rows: Iterable[Sequence[object]]) -> None:
    """Rows as CSV on stdout; on a terminal, characters that would control it are escaped."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    rendered = plain(text.getvalue()) if sys.stdout.isatty() else text.getvalue()
    typer.echo(rendered.encode(errors="surrogateescape"), nl=False)  # names may be no UTF-8


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table: on a terminal, cells are wrapped between words; elsewhere, columns are aligned.

    Where the longest words do not fit side by side, names are broken after their underscores, too;
    where that is not enough, each row becomes lines of `column: cell`.
    """
    columns = [plain(name) for name in columns]
    rows = [[plain(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console

        _print_on_terminal(columns, rows, Console())
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def _print_on_terminal(
    columns: Sequence[str], rows: Sequence[Sequence[str]], console: "Console"
) -> None:
    from rich.padding import Padding
    from rich.table import Column, Table
    from rich.text import Text

    widths = _column_widths(columns, rows, console.width)
    if widths is None:
        names_broken = [[row[0], *map(_broken, row[1:])] for row in (columns, *rows)]
        widths = _column_widths(names_broken[0], names_broken[1:], console.width)
        if widths is not None:
            columns, *rows = names_broken
    if widths is None:
        for row in rows:
            console.print(Text(row[0], style="bold", overflow="fold"))
            for name, cell in zip(columns[1:], row[1:], strict=True):
                if not cell:
                    continue
                console.print(
                    Padding(Text(f"{name}: {cell}", overflow="fold"), (0, 0, 0, 2), expand=False)
                )
        return
    heads = [
        Column(Text(_wrapped(name, width)), width=width, overflow="fold")
        for name, width in zip(columns, widths, strict=True)
    ]
    table = Table(*heads, box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*map(Text, map(_wrapped, row, widths)))
    console.print(table)


def _column_widths(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> list[int] | None:
    """The widths of the columns at which no word is cut; the widest columns wrap first.

    The first column never wraps. None if the longest words do not fit side by side.
    """
    from rich.cells import cell_len

    cells = list(zip(columns, *rows, strict=True))
    whole = [max(cell_len(line) for cell in own for line in cell.split("\n")) for own in cells]
    least = [max(cell_len(word) for cell in own for word in WORD_ENDS.split(cell)) for own in cells]
    widths = [whole[0], *least[1:]]
    room = width - GAP * (len(columns) - 1) - sum(widths)
    if room < 0:
        return None
    for place in sorted(range(len(widths)), key=lambda i: whole[i] - widths[i]):
        more = min(room, whole[place] - widths[place])
        widths[place] += more
        room -= more
    return widths


def _broken(cell: str) -> str:
    """A cell with a new line after each underscore of its words of more than eight letters."""
    return re.sub(r"\w{9,}", lambda word: re.sub("(?<=._)(?=.)", "\n", word[0]), cell)


def _wrapped(cell: str, width: int) -> str:
    """A cell in lines of at most `width`, broken between words; a wider word has its own line."""
    from rich.cells import cell_len

    lines: list[str] = []
    for own in cell.split("\n"):
        line = ""
        for word in WORD_ENDS.split(own):
            if line and cell_len(f"{line} {word}") > width:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}" if line else word
        lines.append(line)
    return "\n".join(lines)


def width(stream: TextIO | None = None) -> int:
    """The width of a line of stdout, or of another stream; unlimited if it is not a terminal."""
    stream = stream or sys.stdout
    stream = getattr(stream, "rich_proxied_file", stream)  # while a bar is shown
    if not stream.isatty():
        return sys.maxsize
    if "COLUMNS" not in os.environ:
        with suppress(OSError):  # of a terminal that tells no size
            return os.get_terminal_size(stream.fileno()).columns or UNKNOWN_WIDTH
    return shutil.get_terminal_size((UNKNOWN_WIDTH, 24)).columns


def wrapped(text: str, stream: TextIO | None = None) -> str:
    """Lines as they are; for a terminal wrapped between words, the rest indented by two spaces.

    A word that does not fit, such as a path, has a line of its own, which the terminal breaks.
    `stream` is stdout unless given.
    """
    room = width(stream)
    if room == sys.maxsize:
        return text
    return "\n".join(
        textwrap.fill(
            line,
            room,
            subsequent_indent=" " * (len(line) - len(line.lstrip()) + 2),
            break_on_hyphens=False,
            break_long_words=False,
        )
        for line in text.split("\n")
    )


def plain(text: str) -> str:
    """Text that is safe to show: characters that would control a terminal are escaped.

    Names of files may hold any character.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def note(message: str) -> None:
    """Print a line on stderr, wrapped on a terminal; rich keeps it above a progress bar."""
    print(wrapped(plain(message), sys.stderr), file=sys.stderr, flush=True)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show on a terminal what is being waited for, until the block ends."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(what)):
        yield


def print_error(error: ZooError) -> None:
    """Print the message and its hint on stderr; with IDAT_DEBUG=1, the traceback too."""
    if os.environ.get("IDAT_DEBUG") == "1":
        traceback.print_exception(error)
    note(f"error: {error.message}")
    if error.hint:
        note(f"hint: {error.hint}")


def end(error: ZooError) -> NoReturn:
    """Print an error, after the result if there is one, and exit with the error's code."""
    print_error(error)
    raise typer.Exit(error.exit_code)


def size(count: int) -> str:
    """A number of bytes in a readable unit: 120.4 MB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1e3:.1f} kB"
