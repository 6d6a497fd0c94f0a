"""Sections of a report, and how numbers and names are written in them."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from idat_zoo.report.fields import as_text
from idat_zoo.values import Frozen, Scalar

if TYPE_CHECKING:
    from idat_zoo.report.effect import Effect

Names = Mapping[str, str]
"""The label of a recipe in words -> the name of the recipe in tables and sentences."""


class Section(Frozen):
    """A title, a table (absent if there are no columns), and sentences below it."""

    title: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    lines: tuple[str, ...] = ()


def table_section(title: str, columns: Mapping[str, list[str]], lines: Iterable[str]) -> Section:
    """A section without the columns that are empty in every row; other empty cells are dashes."""
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    rows = zip(*kept.values(), strict=True)
    return Section(
        title=title,
        columns=tuple(kept),
        rows=tuple(tuple(cell or "–" for cell in row) for row in rows),
        lines=tuple(lines),
    )


def as_words(label: Mapping[str, Scalar]) -> str:
    """A label as text: `teacher none, lr 0.003`."""
    return ", ".join(f"{name} {as_text(value)}" for name, value in label.items())


def as_count(number: int) -> str:
    """A count of parameters as text: 250, 18.4 k, 1.23 M."""
    if number >= 1_000_000:
        return f"{number / 1e6:.2f} M"
    return f"{number / 1e3:.1f} k" if number >= 1000 else str(number)


def percent(fraction: float) -> str:
    """A fraction in per cent: 0.931 -> 93.10."""
    return f"{100 * fraction:.2f}"


def points(fraction: float) -> str:
    """A difference of fractions in percentage points: 0.0125 -> +1.25."""
    return f"{100 * fraction:+.2f}"


def p_value(p: float) -> str:
    """A p-value to four digits: 0.0123, or <0.0001."""
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def effect_in_words(effect: "Effect") -> str:
    """`+1.20`, or with an interval `+1.20 (+0.40 to +1.90)`."""
    if effect.interval is None:
        return f"{effect.size:+.2f}"
    low, high = effect.interval
    return f"{effect.size:+.2f} ({low:+.2f} to {high:+.2f})"


def plural(count: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def footnote_letters(notes: Iterable[str]) -> dict[str, str]:
    """A letter for each note that a table explains below it: a to z, then aa to zz."""
    return {note: _letter(number) for number, note in enumerate(dict.fromkeys(notes))}


def _letter(number: int) -> str:
    before, own = divmod(number, 26)
    return (_letter(before - 1) if before else "") + "abcdefghijklmnopqrstuvwxyz"[own]
