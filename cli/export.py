"""The commands that exchange adapters with other libraries: `idat merge`, `export`, `import`."""

import shlex
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idat_zoo.cli import screen
from idat_zoo.cli.options import (
    CheckpointArgument,
    CheckpointOption,
    DataDirOption,
    JsonOption,
    PluginOption,
    ShelfOption,
    YesOption,
    one_checkpoint,
)
from idat_zoo.errors import UsageError, ZooError

if TYPE_CHECKING:
    from idat_zoo.checkpoint.loading import Checkpoint
    from idat_zoo.checkpoint.opened import Opened


class Format(StrEnum):
    """The formats that `idat export` writes."""

    PEFT = "peft"
    ONNX = "onnx"


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


def merge(
    out: NewFolderOption,
    checkpoint: CheckpointArgument = None,
    named: CheckpointOption = None,
    plugin: PluginOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Fold an adapter into its backbone, as a plain timm model.

    The model can be used without idat-zoo.

    For example: idat merge builtin:digits-lora -o digits-vit
    """
    from idat_zoo.checkpoint.opened import open_checkpoint
    from idat_zoo.formats.timm_model import write_merged

    opened = open_checkpoint(one_checkpoint(checkpoint, named))
    difference = write_merged(_load(opened, yes=yes), out)
    how = f'timm.create_model("local-dir:{out}", pretrained=True)'
    _tell(Written(out=out, how=how, notes={"largest_difference": difference}), json=json)


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
        _tell(_export(single, out, to, rank, yes=yes), json=json)
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
        screen.print_json({"exported": [_document(one) for one in written]})
    else:
        for one in written:
            _tell(one, json=False)
    if failures:
        raise typer.Exit(screen.SOME_FAILED if written else failures[-1].exit_code)


def _export(opened: "Opened", out: Path, to: Format, rank: int | None, *, yes: bool) -> Written:
    loaded = _load(opened, yes=yes)
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


def import_adapter(
    source: Annotated[
        Path, typer.Argument(metavar="PEFT_FOLDER", help="What PEFT's save_pretrained wrote.")
    ],
    backbone: Annotated[
        str,
        typer.Option("--backbone", metavar="NAME", help="The shelves' name of what it stands on."),
    ],
    task: Annotated[
        str,
        typer.Option(
            "--task", metavar="TASK", help="What its head classifies; or folder: of --data-dir."
        ),
    ],
    out: NewFolderOption,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]…",
            help="normalisation=imagenet or none, where images were not normalised as the "
            "backbone's own were.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDirOption = None,
    shelf: ShelfOption = None,
    plugin: PluginOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Import an adapter that PEFT trained on a timm network.

    Its logits stay the same. Properties that could not be checked are listed.

    For example: idat import digits-peft --backbone micro_student --task digits -o digits
    """
    from idat_zoo.cli.downloads import offer_weights
    from idat_zoo.formats.peft_folder import read_config
    from idat_zoo.formats.peft_import import import_peft
    from idat_zoo.formats.peft_tuners import unchecked
    from idat_zoo.registry import FOLDER, load_registry, parse_words, with_folder

    words = {"normalisation": "model"} | parse_words(overrides or [])
    beside = words.keys() - {"normalisation"}
    if beside:
        raise UsageError(
            f"'{min(beside)}' cannot be set: how an adapter was trained elsewhere is not known.",
            hint="Only normalisation=model|imagenet|none is taken.",
        )
    registry = load_registry(shelf)
    own = task == FOLDER
    if own:
        if data_dir is None:
            raise UsageError(
                "--task folder is the images of --data-dir, which is not given.",
                hint="The outputs of the head stand for its classes, in their order.",
            )
        registry, task = with_folder(registry, data_dir)
    offer_weights([registry.find_backbone(backbone)], yes=yes)
    recipe = import_peft(
        source,
        out,
        backbone=registry.find_backbone(backbone),
        task=registry.find_task(task),
        normalisation=words["normalisation"],
    )
    options = recipe.adapter.model_dump(mode="json")["options"]
    notes = unchecked(read_config(source), recipe.adapter, recipe.normalisation)
    if json:
        screen.print_json(
            {
                "folder": str(out),
                "backbone": backbone,
                "task": recipe.task.id,
                "adapter": options,
                "unchecked": notes,
            }
        )
        return
    told = ", ".join(f"{name} {value}" for name, value in options.items() if name != "tuner")
    word = recipe.adapter.word
    typer.echo(f"{out}: {word} on {backbone} for {recipe.task.id}" + (f" ({told})" if told else ""))
    for note in notes:
        screen.note(f"not checked: {note}")
    place = f" --data-dir {shlex.quote(str(data_dir))}" if data_dir is not None else ""
    typer.echo(f"  idat eval {shlex.quote(str(out))}{place}")
    if own:
        screen.note(f"outputs stand for, in order: {', '.join(recipe.task.class_names)}")


def _load(opened: "Opened", *, yes: bool) -> "Checkpoint":
    """Load a checkpoint, after asking for consent if its backbone must be downloaded."""
    from idat_zoo.checkpoint.loading import load_checkpoint
    from idat_zoo.cli.checkpoint_notes import tell_diverged
    from idat_zoo.cli.downloads import offer_weights

    tell_diverged({str(opened): opened.config})
    offer_weights([opened.config.backbone], yes=yes)
    return load_checkpoint(opened)


def _tell(written: Written, *, json: bool) -> None:
    """Print the folder, the differences, the losses of a conversion, and the way to load it."""
    if json:
        screen.print_json(_document(written))
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


def _document(written: Written) -> dict[str, object]:
    document = {"folder": str(written.out), **written.notes}
    return {key: value for key, value in document.items() if value is not None}
