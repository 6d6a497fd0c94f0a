"""How results and errors look: results on stdout, everything else on stderr."""

import json
import os
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

from idat_zoo.errors import ZooError

SCHEMA_VERSION = 1


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON document on stdout, with its schema_version first."""
    text = json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=2, ensure_ascii=False)
    typer.echo(text.encode(errors="backslashreplace"))  # a name that is no UTF-8: JSON's own \udcff


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A rich table on a terminal, where the first column stays whole; aligned text elsewhere."""
    rows = [[plain(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Column, Table
        from rich.text import Text

        headers = [
            Column(Text(plain(name)), no_wrap=i == 0, overflow="fold")
            for i, name in enumerate(columns)
        ]
        table = Table(*headers, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def plain(text: str) -> str:
    """Text that may be shown. Names of files may hold anything: what would steer a terminal becomes
    an escape.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def note(message: str) -> None:
    """A line for people, on stderr; above a bar, if there is one, as rich sees to."""
    print(plain(message), file=sys.stderr, flush=True)


def print_error(error: ZooError) -> None:
    """The message and its hint on stderr; the traceback too with IDAT_DEBUG=1."""
    if os.environ.get("IDAT_DEBUG") == "1":
        traceback.print_exception(error)
    note(f"error: {error.message}")
    if error.hint:
        note(f"hint: {error.hint}")


def size(count: int) -> str:
    """Bytes for people: 120.4 MB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1e3:.1f} kB"
