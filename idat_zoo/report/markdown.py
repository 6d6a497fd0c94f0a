"""Markdown of a report: its sections with pipe tables."""

from collections.abc import Iterable, Sequence

from idat_zoo.report.cells import Section


def as_markdown(sections: Iterable[Section]) -> str:
    """All sections as one text; titles are bold text, so that they fit below any heading."""
    return "\n\n".join(_section(section) for section in sections) + "\n"


def _section(section: Section) -> str:
    parts = [f"**{escaped(section.title)}**"]
    if section.columns:
        parts.append(markdown_table(section.columns, section.rows))
    if section.lines:
        parts.append("\n".join(f"- {escaped(line)}" for line in section.lines))
    return "\n\n".join(parts)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A pipe table; a pipe inside a cell is escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(escaped, line)) + " |" for line in lines)


def escaped(text: str) -> str:
    """Text on one line, with the characters escaped that Markdown would interpret."""
    for sign in ("\\", "|", "*", "[", "]", "`"):
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.replace("<", "&lt;").splitlines())
