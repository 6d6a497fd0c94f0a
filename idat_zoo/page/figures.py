"""Figures as inline SVG, or as PNG. In SVG, text stays text, and bytes are reproducible.

matplotlib draws with the colours below, which stand for the variables of the page's style sheet, so
a figure is dark on a dark page. Each series has a marker and a dash pattern of its own, too, so
that figures can be read in black and white.
"""

import io
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb, to_rgba_array
from matplotlib.figure import Figure

INK, MUTED, GRID = "#010101", "#020202", "#030303"
SERIES = ("#040401", "#040402", "#040403", "#040404", "#040405", "#040406")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)))
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "line",
    **{colour: f"series-{number}" for number, colour in enumerate(SERIES, start=1)},
}
"""The colours that matplotlib draws with, and the variables of the page that they stand for."""
LONGEST_LABEL = 30
"""Characters of a line of an axis label."""
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of this size in inches, with one pair of axes, in the style of the page."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def wrapped(labels: Sequence[str]) -> tuple[list[str], float]:
    """Labels of an axis, broken into lines, and the inches that each of them takes."""
    lines = [textwrap.fill(label, LONGEST_LABEL) for label in labels]
    most = max(line.count("\n") + 1 for line in lines)
    return lines, 0.08 + 0.16 * most


@dataclass(frozen=True)
class Drawing:
    """A figure that was drawn. It is saved once: as a PNG, its colours are no more the page's.

    `name` is unique on the page and begins all ids of the figure. `title` is its accessible name.
    `tips` are texts by the gid of an artist, which browsers show beside the pointer.
    """

    figure: Figure
    name: str
    title: str
    tips: Mapping[str, str] = field(default_factory=dict)

    def svg(self) -> str:
        """The figure as an SVG element for HTML."""
        written = io.BytesIO()
        with mpl.rc_context(SETTINGS | {"svg.hashsalt": self.name}):
            self.figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
        text = written.getvalue().decode()
        text = text[text.index("<svg") :]
        text = re.sub(r"<(metadata|style).*?</\1>\s*", "", text, flags=re.DOTALL)
        text = re.sub(r" font-family: [^;]*;", "", text)
        for gid, tip in self.tips.items():
            marked = f'<g id="{gid}">'
            assert marked in text, gid
            text = text.replace(marked, f"{marked}<title>{escape(tip)}</title>", 1)
        text = re.sub(r'\bid="', f'id="{self.name}-', text)
        text = re.sub(r'(url\(#|href="#)', rf"\g<1>{self.name}-", text)
        for colour, variable in VARIABLES.items():
            text = text.replace(colour, f"var(--{variable})")
        width, height = re.findall(r'\b(?:width|height)="([\d.]+)pt"', text)[:2]
        text = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", text)
        opening = (
            f'<svg role="img" aria-label="{escape(self.title, quote=True)}" '
            f'style="width: {float(width) * 4 / 3:.0f}px" data-height="{float(height):.0f}" '
        )
        return text.replace("<svg ", opening, 1).strip()

    def png(self, colours: Mapping[str, str]) -> bytes:
        """The figure as a PNG, with these colours for the page's variables by name."""
        shown = {own: colours[variable] for own, variable in VARIABLES.items()}
        for artist in self.figure.findobj():
            for kind in ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor"):
                if hasattr(artist, f"set_{kind}") and hasattr(artist, f"get_{kind}"):
                    _recolour(artist, kind, shown)
        written = io.BytesIO()
        with mpl.rc_context(SETTINGS):
            self.figure.savefig(written, format="png", dpi=200, facecolor=colours["paper"])
        return written.getvalue()


def _recolour(artist: Any, kind: str, shown: Mapping[str, str]) -> None:
    """Give an artist other colours where it has those of `VARIABLES`; its opacity stays."""
    before = to_rgba_array(getattr(artist, f"get_{kind}")())
    after = [
        (*to_rgb(shown[to_hex(row)]), float(row[3])) if to_hex(row) in shown else tuple(row)
        for row in before
    ]
    if after != [tuple(row) for row in before]:
        getattr(artist, f"set_{kind}")(after[0] if len(after) == 1 else after)


def standalone(svg: str, colours: Mapping[str, str]) -> str:
    """A figure as an SVG file of its own; `colours` are those of the page's variables by name."""
    for name, colour in colours.items():
        svg = svg.replace(f"var(--{name})", colour)
    assert "var(--" not in svg
    paper = f'<rect width="100%" height="100%" fill="{colours["paper"]}"/>'
    opening, rest = svg.split(">", 1)
    opening = opening.replace('style="', 'style="font-family: system-ui, sans-serif; ', 1)
    return f"{opening}>{paper}{rest}\n"


def label_series(names: Sequence[str]) -> dict[str, tuple[str, str, object]]:
    """The colour, the marker and the dashes of each series; from the seventh on, they repeat."""
    return {
        name: (
            SERIES[place % len(SERIES)],
            MARKERS[place % len(MARKERS)],
            DASHES[place % len(DASHES)],
        )
        for place, name in enumerate(names)
    }
