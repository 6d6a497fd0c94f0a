"""The HTML page of a comparison of two runs, or of two groups of runs."""

from collections.abc import Mapping, Sequence

from idat_zoo.page.thumbnails import MOST, Pictures, shown_images, thumbnails
from idat_zoo.page.write import environment, resource
from idat_zoo.report.compare import RunsComparison
from idat_zoo.report.compare_layout import lay_out_comparison


def render_comparison(
    found: RunsComparison, pictures: Mapping[str, Pictures], missing: Sequence[str] = ()
) -> str:
    """The HTML of a comparison.

    `pictures` are the images of each task by their indices, at least those of `shown_images`;
    `missing` says why those of other tasks are not shown.
    """
    images = {}
    for one in found.tasks:
        if one.task not in pictures:
            continue
        names = {own.index: own.name for own in one.classes if own.name is not None}
        gained, lost = shown_images(one)
        images[one.task] = {
            "B": thumbnails(gained, pictures[one.task], names),
            "A": thumbnails(lost, pictures[one.task], names),
        }
    return (
        environment()
        .get_template("compare.html")
        .render(
            title=f"{found.second} (B) compared with {found.first} (A)",
            sections=lay_out_comparison(found),
            images=images,
            most=MOST,
            missing=missing,
            style=resource("page.css"),
            script=resource("page.js"),
        )
    )
