"""`idat compare`: two runs, or two groups of runs, image by image."""

from pathlib import Path
from typing import Annotated

import typer

from idat_zoo.cli.options import DataDirOption, JsonOption, PluginOption, ShelfOption
from idat_zoo.cli.report import Format, FormatOption, check_page, print_sections, write_file
from idat_zoo.cli.screen import print_json
from idat_zoo.errors import UsageError


def compare(
    first: Annotated[
        Path,
        typer.Argument(metavar="A", help="A run's folder, one above several, or a result.json."),
    ],
    second: Annotated[Path, typer.Argument(metavar="B", help="The one that is compared with it.")],
    format: FormatOption = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write it as an HTML page, too, with images that changed (extra `report`).",
        ),
    ] = None,
    data_dir: DataDirOption = None,
    shelf: ShelfOption = None,
    plugin: PluginOption = None,
    json: JsonOption = False,
) -> None:
    """What changes from A to B: recipe, top-1, classes and images.

    Of each task either side has one recipe, with any number of seeds; the runs of a seed are
    compared image by image on the same test images.

    \b
      idat compare runs/…/seed0 runs/…/seed0      two runs
      idat compare runs/A runs/B --json           two groups, and all images
      idat compare runs/A runs/B --html ab.html   a page that shows these
    """
    if json and format is not None:
        raise UsageError("--json and --format exclude each other", hint="Leave one of them out.")
    if html is not None:
        check_page(html)
    from idat_zoo.registry import load_registry
    from idat_zoo.report.compare import compare_results
    from idat_zoo.report.compare_layout import lay_out_comparison
    from idat_zoo.report.markdown import as_markdown
    from idat_zoo.results import find_results

    ours, theirs = find_results([first]), find_results([second])
    found = compare_results(
        ours,
        theirs,
        names=(str(first), str(second)),
        read_options=load_registry(shelf).read_options,
    )
    if html is not None:
        from idat_zoo.cli.compare_images import read_pictures
        from idat_zoo.page.compare import render_comparison

        pictures, missing = read_pictures(found, [result for _, result in ours], data_dir)
        write_file(html, render_comparison(found, pictures, missing), option="--html")
    if json:
        print_json({"comparison": found.model_dump(mode="json", exclude_none=True)})
    elif format == Format.MARKDOWN:
        typer.echo(as_markdown(lay_out_comparison(found)), nl=False)
    else:
        print_sections(lay_out_comparison(found))
