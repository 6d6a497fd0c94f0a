"""`idat merge`: an adapter folded into its backbone, as a plain timm model."""

from pathlib import Path
from typing import Annotated

import typer

from idat_zoo.cli import screen
from idat_zoo.cli.options import JsonOption


def merge(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A run's folder, or builtin:NAME.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="A new folder for the model.")
    ],
    json: JsonOption = False,
) -> None:
    """Fold an adapter into its backbone: a timm model that needs nothing of idat-zoo.

    For example: idat merge builtin:digits-lora -o digits-vit
    """
    from idat_zoo.checkpoint import load_checkpoint
    from idat_zoo.merging import write_merged

    difference = write_merged(load_checkpoint(checkpoint), out)
    if json:
        screen.print_json({"folder": str(out), "largest_difference": difference})
        return
    typer.echo(f"{out}: logits on the probe images differ by {difference:.1e} of the largest")
    typer.echo(f'  timm.create_model("local-dir:{out}", pretrained=True)')
