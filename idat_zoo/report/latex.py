r"""A report as LaTeX: methods in rows, tasks in columns, then the means, with lines of booktabs.

The text is a part of a document that has `\usepackage{booktabs,graphicx}`.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from idat_zoo.data.suites import load_suite
from idat_zoo.data.suites.base import Suite
from idat_zoo.report.build import Report
from idat_zoo.report.cells import as_words, footnote_letters, percent, plural
from idat_zoo.report.layout import means_legend
from idat_zoo.report.means import Mean, SeriesMeans
from idat_zoo.report.rows import Row

BEGINNING = "% Made by idat report: "
ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
NARROWED = r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%"
"""What opens a box that is as wide as its content, or at most as the page."""
TITLE = "Top-1 on test in per cent"
MISSING = "--"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A top-1 as a fraction, what it differs in, and for a mean of some tasks their share."""

    top1: float
    marks: Sequence[str] = ()
    of: str = ""


Line = tuple[str, Mapping[str, Cell]]
"""A method and its cells by column."""


def as_latex(report: Report) -> str:
    """The tables of a report: one for each suite with means, and one of all other rows."""
    counted = f"{plural(report.results, 'result')}, {plural(report.recipes, 'recipe')}"
    parts = [f"{BEGINNING}{counted}\n% It needs \\usepackage{{booktabs,graphicx}}\n"]
    for suite in dict.fromkeys(series.suite for series in report.means):
        means = [series for series in report.means if series.suite == suite]
        parts.append(_of_suite(load_suite(suite), means, report.rows))
    averaged = {place for series in report.means for place in series.rows.values()}
    others = [row for place, row in enumerate(report.rows) if place not in averaged]
    return "\n".join([*parts, *([_of_rows(others)] if others else [])])


def _of_suite(suite: Suite, means: Sequence[SeriesMeans], rows: Sequence[Row]) -> str:
    present = {task for series in means for task in series.tasks}
    tasks = dict.fromkeys(row.task for row in rows if row.task in present)
    groups = {mean.name for series in means for mean in series.groups}
    overall = [mean for series in means for mean in series.overall]
    named = dict.fromkeys(mean.name for mean in sorted(overall, key=lambda m: m.count < m.of))
    lines = [
        (
            as_words(series.label),
            {task: _cell(rows[place]) for task, place in series.rows.items()}
            | {mean.name: _mean(mean) for mean in (*series.groups, *series.overall)},
        )
        for series in means
    ]
    title = f"{TITLE} over {suite.title}"
    columns = [*tasks, *(name for name in suite.groups if name in groups), *named]
    return _table(". ".join([title, *means_legend(means)]), columns, lines)


def _of_rows(rows: Sequence[Row]) -> str:
    """The table of rows that enter no mean; a second row of a method and task has its own line."""
    lines: dict[tuple[str, int], dict[str, Cell]] = {}
    for row in rows:
        method = as_words(row.label)
        number = sum(row.task in cells for (other, _), cells in lines.items() if other == method)
        lines.setdefault((method, number), {})[row.task] = _cell(row)
    tasks = dict.fromkeys(row.task for row in rows)
    return _table(TITLE, list(tasks), [(method, cells) for (method, _), cells in lines.items()])


def _cell(row: Row) -> Cell:
    return Cell(top1=row.top1.mean, marks=[str(mark) for mark in row.marks])


def _mean(mean: Mean) -> Cell:
    return Cell(top1=mean.top1, of=f"{mean.count}/{mean.of}" if mean.count < mean.of else "")


def _table(caption: str, columns: Sequence[str], lines: Sequence[Line]) -> str:
    letters = footnote_letters(
        mark for _, cells in lines for one in cells.values() for mark in one.marks
    )
    turned = [f"\\rotatebox{{90}}{{{escaped(column)}}}" for column in columns]
    body = [
        [escaped(method), *(_text(cells.get(column), letters) for column in columns)]
        for method, cells in lines
    ]
    explained = [f"{_raised(letter)} {escaped(mark)}." for mark, letter in letters.items()]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            f"\\caption{{{escaped(caption.removesuffix('.'))}.}}",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{3pt}",
            NARROWED,
            f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
            r"\toprule",
            " & ".join(["method", *turned]) + r" \\",
            r"\midrule",
            *(" & ".join(cells) + r" \\" for cells in body),
            r"\bottomrule",
            r"\end{tabular}}",
            *([r"\par\medskip", " ".join(explained)] if explained else []),
            r"\end{table}",
            "",
        ]
    )


def _text(cell: Cell | None, letters: Mapping[str, str]) -> str:
    if cell is None:
        return MISSING
    of = f" ({cell.of})" if cell.of else ""
    marks = _raised(",".join(letters[mark] for mark in cell.marks)) if cell.marks else ""
    return f"{percent(cell.top1)}{of}{marks}"


def _raised(text: str) -> str:
    return f"\\textsuperscript{{{text}}}"


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is; letters that it may not know are named by their code."""
    return "".join(map(_escaped, " ".join(text.split())))


def _escaped(sign: str) -> str:
    if sign in ESCAPED:
        return ESCAPED[sign]
    if sign.isascii():
        return sign if sign.isprintable() else " "
    plain = unicodedata.normalize("NFD", sign)[0]
    return sign if plain.isascii() and plain.isalpha() else f"[U+{ord(sign):04X}]"
