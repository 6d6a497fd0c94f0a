"""The page as text: the numbers of its parts, rendered by a template."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from idat_zoo.errors import UsageError
from idat_zoo.page.contrast import Contrasts
from idat_zoo.page.costs import (
    Cost,
    Spread,
    as_minutes,
    build_costs,
    build_spreads,
    cost_figures,
    memory_note,
)
from idat_zoo.page.details import Detail, build_details, draw_curves, draw_reliability
from idat_zoo.page.entries import build_entries
from idat_zoo.page.figures import Drawing
from idat_zoo.page.gains import Forest, draw_forest, reference_forests, teacher_forests
from idat_zoo.page.headline import headline
from idat_zoo.page.heat import Heat, build_heat
from idat_zoo.page.provenance import Provenance, build_provenance
from idat_zoo.page.ranks import build_ranks, draw_ranks
from idat_zoo.page.together import Together, build_together
from idat_zoo.page.watched import Watched, build_watched, draw_watched
from idat_zoo.report.against_layout import lay_out_against
from idat_zoo.report.build import Report
from idat_zoo.report.cells import Section, as_count, as_words, percent, points
from idat_zoo.report.layout import lay_out
from idat_zoo.report.ranks import Ranks
from idat_zoo.report.rows import Group

MOST_FORESTS = 6
"""Methods whose gains are drawn task by task; of more, the means are drawn."""
Downloads = Mapping[str, str]
"""The name of a file -> its text."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """The numbers and figures of a report's page, which it is rendered from.

    `over` says what the forests compare with. Each figure can be saved once.
    """

    report: Report
    provenance: Provenance
    heat: Heat
    over: str
    forests: Sequence[Forest]
    forest_figures: Sequence[Drawing]
    ranks: Mapping[str, Ranks]
    rank_figures: Mapping[str, Drawing]
    watched: Sequence[Watched]
    watched_figure: Drawing | None
    costs: Sequence[Cost]
    cost_figures: Sequence[Drawing]
    memory_note: str
    spreads: Sequence[Spread]
    details: Sequence[Detail]
    detail_figures: Sequence[Sequence[Drawing]]
    together: Sequence[Together]

    def figures(self) -> list[Drawing]:
        """All figures in the order of the page."""
        watched = [self.watched_figure] if self.watched_figure is not None else []
        of_tasks = [figure for own in self.detail_figures for figure in own]
        ranks = self.rank_figures.values()
        return [*ranks, *self.forest_figures, *watched, *self.cost_figures, *of_tasks]

    def render(self, *, title: str, downloads: Downloads | None = None) -> str:
        """The HTML of the page. The same results give the same bytes."""
        template = environment().get_template("page.html")
        return template.render(
            vars(self),
            title=title,
            headline=headline(self.heat, self.forests, over=self.over),
            sections=lay_out(self.report.model_copy(update={"published": None})),
            published_sections=_published(self.report),
            downloads={name: _as_link(name, text) for name, text in (downloads or {}).items()},
            style=resource("page.css"),
            script=resource("page.js"),
        )


def build_page(report: Report, groups: Sequence[Group], *, reference: str | None = None) -> Page:
    """The page of a report; `groups` are the results of its rows, in their order.

    With `reference`, methods are compared with the method of that name, and otherwise students with
    their teacher and alone.

    Raises: UsageError for a reference that is no method of the report, which names all.
    """
    entries = build_entries(report.rows, groups)
    contrasts = Contrasts(entries)
    if reference is None:
        forests = teacher_forests(entries, report.gains)
        over = "with its teacher over the student alone"
    else:
        names = list(dict.fromkeys(entry.method for entry in entries))
        if reference not in names:
            raise UsageError(
                f"this report has no method '{reference}'.", hint=f"It has: {'; '.join(names)}"
            )
        forests, over = reference_forests(entries, contrasts, reference), f"over '{reference}'"
    costs, details, watched = build_costs(entries), build_details(entries), build_watched(entries)
    ranks = build_ranks(entries, report.means)
    return Page(
        report=report,
        provenance=build_provenance(entries),
        heat=build_heat(entries, report.means, contrasts),
        over=over,
        forests=forests,
        forest_figures=_forest_figures(forests, over),
        ranks=ranks,
        rank_figures={suite: draw_ranks(own, f"ranks-{suite}") for suite, own in ranks.items()},
        watched=watched,
        watched_figure=draw_watched(watched, "watched") if watched else None,
        costs=costs,
        cost_figures=cost_figures(costs),
        memory_note=memory_note(costs),
        spreads=build_spreads(report.rows),
        details=details,
        detail_figures=[_detail_figures(one, place) for place, one in enumerate(details)],
        together=build_together(entries),
    )


def _published(report: Report) -> list[Section]:
    if report.published is None:
        return []
    ours = {as_words(row.label) for beside in report.published.beside for row in beside.ours}
    return lay_out_against(report.published, {name: name for name in ours})


def _forest_figures(forests: Sequence[Forest], over: str) -> list[Drawing]:
    """A figure for each method, or one of the means of many."""
    if len(forests) <= MOST_FORESTS:
        return [
            draw_forest(forest, f"gains-{place}", over=over) for place, forest in enumerate(forests)
        ]
    means = [
        (forest.mean or forest.lines[0]).model_copy(update={"task": forest.method})
        for forest in forests
    ]
    all_means = Forest(method="means over tasks", lines=tuple(means), mean=None)
    return [draw_forest(all_means, "gains", over=over)]


def _detail_figures(detail: Detail, place: int) -> list[Drawing]:
    figures = [draw_reliability(detail, f"reliability-{place}")] if detail.reliability else []
    return figures + ([draw_curves(detail, f"curves-{place}")] if detail.curves else [])


def environment() -> jinja2.Environment:
    """The environment of the page's templates, which escapes all that they show."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("idat_zoo.page", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {"percent": percent, "points": points, "count": as_count}
    made.filters |= {"minutes": as_minutes, "svg": _svg}
    return made


def _svg(figure: Drawing) -> Markup:
    return Markup(figure.svg())


def resource(name: str) -> Markup:
    """A style sheet or a script of the page, to be put into it as it is."""
    file = resources.files("idat_zoo.page") / "templates" / name
    return Markup(file.read_text(encoding="utf-8"))


def schemes() -> dict[str, dict[str, str]]:
    """The colours of the page, `light` and `dark`, by the names of the style sheet's variables."""
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w+);", block))
        for block in re.findall(r":root \{(.*?)\}", resource("page.css"), re.DOTALL)
    )
    return {"light": light, "dark": light | dark}


def _as_link(name: str, text: str) -> str:
    """A data URI from which a browser saves a file."""
    kinds = {".json": "application/json", ".csv": "text/csv", ".tex": "application/x-tex"}
    content = base64.b64encode(text.encode()).decode()
    return f"data:{kinds.get(Path(name).suffix, 'text/plain')};base64,{content}"
