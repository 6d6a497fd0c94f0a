"""An adapter written by `idat merge` or `idat export`, as it is loaded and as it is printed."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idat_zoo.cli import screen

if TYPE_CHECKING:
    from idat_zoo.checkpoint.loading import Checkpoint
    from idat_zoo.checkpoint.opened import Opened


@dataclass(frozen=True, kw_only=True)
class Written:
    """An adapter that was written: its folder, and the line of Python that loads it.

    `notes` are further fields of `--json`: the largest difference of the logits, relative to the
    largest logit; after a conversion to LoRA also its rank, the fraction of the weights' change
    that it loses, and the parameters that it leaves out.
    """

    out: Path
    how: str
    notes: dict[str, Any]


NewFolderOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="A new folder for what is written.")
]


def load_agreed(opened: "Opened", *, yes: bool) -> "Checkpoint":
    """Load a checkpoint, after asking for consent if its backbone must be downloaded."""
    from idat_zoo.checkpoint.loading import load_checkpoint
    from idat_zoo.cli.checkpoint_notes import tell_diverged
    from idat_zoo.cli.downloads import offer_weights

    tell_diverged({str(opened): opened.config})
    offer_weights([opened.config.backbone], yes=yes)
    return load_checkpoint(opened)


def print_written(written: Written, *, json: bool) -> None:
    """Print the folder, the differences, the losses of a conversion, and the way to load it."""
    if json:
        screen.print_json(as_document(written))
        return
    notes = written.notes
    difference = notes["largest_difference"]
    compared = (
        "" if difference is None else f": probe logits within {difference:.1e} of the largest"
    )
    typer.echo(f"{written.out}{compared}")
    if "rank" in notes:
        lost = f"{notes['weights_lost']:.1e} of what the weights changed"
        typer.echo(f"  converted to LoRA of rank {notes['rank']}, which loses {lost}")
        if notes["left_out"]:
            typer.echo(f"  left out, having no place in it: {', '.join(notes['left_out'])}")
    typer.echo(f"  {written.how}")


def as_document(written: Written) -> dict[str, object]:
    """The fields of `--json`, without those that do not apply."""
    document = {"folder": str(written.out), **written.notes}
    return {key: value for key, value in document.items() if value is not None}
