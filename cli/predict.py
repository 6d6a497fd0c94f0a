"""`idat predict`: the classes of images by trained adapters, with their probabilities."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idat_zoo.cli import screen
from idat_zoo.cli.imports import uncollected
from idat_zoo.cli.options import (
    DeviceOption,
    JsonOption,
    MegapixelsOption,
    PinnedOption,
    PluginOption,
    YesOption,
    check_references,
)
from idat_zoo.cli.own_weights import GivenWeightsOption
from idat_zoo.errors import DataError, UsageError

if TYPE_CHECKING:
    from idat_zoo.pictures import Picture
    from idat_zoo.prediction import Prediction

STDIN = "-"
USE = "idat predict CHECKPOINT IMAGE…, e.g. idat predict builtin:digits-lora photo.png"
COLUMNS = ("image", "checkpoint", "task", "rank", "class", "name", "probability", "fault")
"""The columns of --csv. `class` is the index of a class; `name` is empty if it is not known."""


def predict(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CHECKPOINT IMAGE…",
            help="A folder, hub:ORG/NAME[@REV][/SUBFOLDER], or builtin:NAME; then image files, "
            "folders of them, or - for one image on stdin.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            "--checkpoint",
            metavar="CHECKPOINT",
            help="The same, in front; may be repeated. All words are images then.",
        ),
    ] = None,
    require_pinned: PinnedOption = False,
    top_k: Annotated[
        int, typer.Option("--top-k", metavar="N", min=1, help="At most N classes of each image.")
    ] = 5,
    device: DeviceOption = "auto",
    max_megapixels: MegapixelsOption = 64,
    weights: GivenWeightsOption = None,
    plugin: PluginOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="A row for each class of each image.")] = False,
) -> None:
    """Classify images with trained adapters.

    Adapters of one backbone share a pass.

    For example: idat predict builtin:digits-lora photo.png
    """
    if json and csv:
        raise UsageError("--json and --csv exclude each other.", hint="Leave one of them out.")
    references, images = _told_apart(words or [], checkpoint or [])
    check_references(references, require_pinned=require_pinned)
    with uncollected():
        from idat_zoo.cli.checkpoint_notes import tell_cached, tell_diverged
        from idat_zoo.cli.downloads import offer_weights
        from idat_zoo.data.reading import Reading
        from idat_zoo.pictures import find_pictures
        from idat_zoo.prediction import Predictor, find_adapters

    found: list[Path | None] = []
    for name in images:
        found += [None] if name == STDIN else find_pictures([Path(name)])
    adapters = find_adapters(references)
    tell_cached(opened.on_hub for opened in adapters.values())
    configs = {name: opened.config for name, opened in adapters.items()}
    tell_diverged(configs)
    offer_weights([config.backbone for config in configs.values()], yes=yes)
    predictor = Predictor(adapters, device=device)
    predictions = predictor.predict(
        _open(found), top=top_k, reading=Reading(max_megapixels=max_megapixels)
    )
    several = len(predictor.configs) > 1
    told: list[Prediction] = []
    if csv:
        screen.print_csv([COLUMNS])
    for prediction in predictions:
        told.append(prediction)
        if prediction.fault:
            screen.note(f"{prediction.image}: {prediction.fault}")
        if csv:
            screen.print_csv(_as_rows(prediction))
        elif not (json or prediction.fault):
            _print(prediction, several=several)
    if json:
        screen.print_json({"predictions": [_as_json(one) for one in told]})
    failed = [one for one in told if one.fault]
    if failed:
        raise typer.Exit(screen.SOME_FAILED if len(failed) < len(told) else DataError.exit_code)


def _told_apart(words: Sequence[str], references: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the words into checkpoints and images; without --checkpoint, the first is a checkpoint.

    Raises: UsageError where one of the two is missing.
    """
    if references:
        if not words:
            raise UsageError("there is no IMAGE to classify.", hint=USE)
        return list(references), list(words)
    if not words:
        raise UsageError("there is neither a CHECKPOINT nor an IMAGE.", hint=USE)
    first, *images = words
    if not _may_be_checkpoint(first):
        raise UsageError(
            f"there is no CHECKPOINT: '{first}' holds none.",
            hint=f"One that ships: idat predict builtin:digits-lora {shlex.join(words)}",
        )
    if not images:
        raise UsageError(
            f"there is no IMAGE to classify with '{first}'.",
            hint=f"idat predict {shlex.quote(first)} IMAGE…",
        )
    return [first], images


def _may_be_checkpoint(word: str) -> bool:
    """Whether a word can name a checkpoint: no file, no image name, no folder without a config."""
    from idat_zoo.data.image_file import SUFFIXES

    place = Path(word)
    if place.is_dir():
        return any(place.rglob("config.json"))
    return word != STDIN and not place.exists() and place.suffix.lower() not in SUFFIXES


def _open(paths: Sequence[Path | None]) -> Iterator["Picture"]:
    """Read the images one by one, each when it is needed; None stands for the image on stdin."""
    from idat_zoo.pictures import Picture, open_picture

    for path in paths:
        if path is None:
            yield Picture(name=STDIN, content=sys.stdin.buffer.read())
        else:
            yield open_picture(path)


def _print(prediction: "Prediction", *, several: bool) -> None:
    by = f"  {prediction.checkpoint}" if several else ""
    typer.echo(screen.plain(f"{prediction.image}{by}"))
    width = max(len(str(ranked.number)) for ranked in prediction.ranked)
    for ranked in prediction.ranked:
        name = f"  {ranked.name}" if ranked.name else ""
        share = f"{100 * ranked.probability:5.1f} %"
        typer.echo(screen.plain(f"  {share}  class {ranked.number:<{width}}{name}"))


def _as_rows(prediction: "Prediction") -> list[tuple[object, ...]]:
    """The rows of --csv: one for each class, the most probable first, or one with the fault."""
    of = (prediction.image, prediction.checkpoint, prediction.task)
    if prediction.fault:
        return [(*of, "", "", "", "", prediction.fault)]
    return [
        (*of, rank, ranked.number, ranked.name, ranked.probability, "")
        for rank, ranked in enumerate(prediction.ranked, start=1)
    ]


def _as_json(prediction: "Prediction") -> dict[str, object]:
    """A prediction for --json, without the fields that do not apply, such as an empty fault."""
    document = asdict(prediction)
    document["ranked"] = [
        {key: value for key, value in ranked.items() if value != ""}
        for ranked in document["ranked"]
    ]
    if prediction.fault:
        del document["ranked"]
    else:
        del document["fault"]
    return document
