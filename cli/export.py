"""`idat export`: adapters in other formats, PEFT's or ONNX."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idat_zoo.cli import screen
from idat_zoo.cli.options import (
    CheckpointArgument,
    CheckpointOption,
    JsonOption,
    PluginOption,
    YesOption,
    one_checkpoint,
)
from idat_zoo.cli.own_weights import GivenWeightsOption
from idat_zoo.cli.written import (
    NewFolderOption,
    Written,
    as_document,
    load_agreed,
    print_written,
)
from idat_zoo.errors import UsageError, ZooError

if TYPE_CHECKING:
    from idat_zoo.checkpoint.opened import Opened


class Format(StrEnum):
    """The formats that `idat export` writes."""

    PEFT = "peft"
    ONNX = "onnx"


def export(
    out: NewFolderOption,
    to: Annotated[
        Format,
        typer.Option(
            "--to",
            metavar="|".join(Format),
            case_sensitive=False,
            help="A folder of PEFT's, or an ONNX graph.",
        ),
    ],
    checkpoint: CheckpointArgument = None,
    named: CheckpointOption = None,
    rank: Annotated[
        int | None,
        typer.Option(
            "--rank",
            metavar="R",
            min=1,
            help="For PEFT: convert any that can be merged to LoRA of this rank, and tell "
            "what is lost.",
        ),
    ] = None,
    weights: GivenWeightsOption = None,
    plugin: PluginOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Write an adapter in another format: PEFT's, or ONNX.

    PEFT has the same function for LoRA, DoRA, LoHa, LoKr, VeRA, (IA)3, OFT, and for adapters that
    are exactly a LoRA once merged. Any other adapter that can be merged needs --rank.

    For a folder of runs, each run below it is written to the same path below --out.

    For example: idat export builtin:digits-lora --to onnx -o digits-onnx
    """
    from idat_zoo.checkpoint.opened import Opened, open_each

    if rank is not None and to is not Format.PEFT:
        raise UsageError(f"--rank is of LoRA, and --to is {to}.", hint="--to peft takes it.")
    found = open_each(one_checkpoint(checkpoint, named))
    single = found["."] if list(found) == ["."] else None
    if isinstance(single, Opened):
        print_written(_export(single, out, to, rank, yes=yes), json=json)
        return
    written: list[Written] = []
    failures: list[ZooError] = []
    for below, opened in found.items():
        try:
            if isinstance(opened, ZooError):
                raise opened
            written.append(_export(opened, out / below, to, rank, yes=yes))
        except ZooError as error:
            failures.append(error)
            screen.note(f"{below}:")
            screen.print_error(error)
    if json:
        screen.print_json({"exported": [as_document(one) for one in written]})
    else:
        for one in written:
            print_written(one, json=False)
    if failures:
        raise typer.Exit(screen.SOME_FAILED if written else failures[-1].exit_code)


def _export(opened: "Opened", out: Path, to: Format, rank: int | None, *, yes: bool) -> Written:
    loaded = load_agreed(opened, yes=yes)
    if to is Format.ONNX:
        from idat_zoo.formats.onnx_graph import MODEL_FILE, write_onnx

        difference = write_onnx(loaded, out)
        how = f'onnxruntime.InferenceSession("{out / MODEL_FILE}")  # uint8 images in, logits out'
        return Written(out=out, how=how, notes={"largest_difference": difference})
    from idat_zoo.formats.peft_export import write_peft

    own = write_peft(loaded, out, rank)
    how = f'PeftModel.from_pretrained(vit, "{out}")  # on timm\'s {loaded.config.backbone.timm}'
    notes: dict[str, Any] = {"largest_difference": own.difference}
    if rank is not None:
        notes |= {"rank": rank, "weights_lost": own.error, "left_out": list(own.left_out)}
    return Written(out=out, how=how, notes=notes)
