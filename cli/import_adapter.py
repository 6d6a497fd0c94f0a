"""`idat import`: an adapter that PEFT trained, as a checkpoint."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from idat_zoo.cli import screen
from idat_zoo.cli.options import (
    DataDirOption,
    JsonOption,
    PluginOption,
    ShelfOption,
    YesOption,
)
from idat_zoo.cli.written import (
    NewFolderOption,
)
from idat_zoo.errors import UsageError


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
