"""`idat predict`: what trained adapters say of images."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idat_zoo.cli import screen
from idat_zoo.cli.options import (
    CheckpointsOption,
    DeviceOption,
    JsonOption,
    MegapixelsOption,
    PinnedOption,
    YesOption,
    check_references,
)
from idat_zoo.errors import DataError

if TYPE_CHECKING:
    from idat_zoo.prediction import Picture, Prediction

STDIN = "-"
SOME_FAILED = 3


def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE|FOLDER|-…",
            help="Image files, folders of them, or - for one image on stdin.",
            show_default=False,
        ),
    ],
    checkpoint: CheckpointsOption,
    require_pinned: PinnedOption = False,
    top_k: Annotated[
        int, typer.Option("--top-k", metavar="N", min=1, help="At most N classes of each image.")
    ] = 5,
    device: DeviceOption = "auto",
    max_megapixels: MegapixelsOption = 64,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Classify images with trained adapters.

    Adapters of one backbone share a pass.

    For example: idat predict --checkpoint builtin:digits-lora photo.png
    """
    check_references(checkpoint, require_pinned=require_pinned)
    from idat_zoo.checkpoint import find_config
    from idat_zoo.cli.offers import offer_weights, tell_cached
    from idat_zoo.data.reading import Reading
    from idat_zoo.prediction import Predictor, find_adapters, find_pictures

    found: list[Path | None] = []
    for name in images:
        found += [None] if name == STDIN else find_pictures([Path(name)])
    adapters = find_adapters(checkpoint)
    tell_cached(adapters.values())
    needed = [find_config(place).backbone for place in adapters.values()]
    offer_weights(needed, yes=yes)
    predictor = Predictor(adapters, device=device)
    predictions = predictor.predict(
        _open(found), top=top_k, reading=Reading(max_megapixels=max_megapixels)
    )
    several = len(predictor.configs) > 1
    told: list[Prediction] = []
    for prediction in predictions:
        told.append(prediction)
        if prediction.fault:
            screen.note(f"{prediction.image}: {prediction.fault}")
        elif not json:
            _print(prediction, several=several)
    if json:
        screen.print_json({"predictions": [_as_json(one) for one in told]})
    failed = [one for one in told if one.fault]
    if failed:
        raise typer.Exit(SOME_FAILED if len(failed) < len(told) else DataError.exit_code)


def _open(paths: Sequence[Path | None]) -> Iterator["Picture"]:
    """Each when its turn comes; None is what stands on stdin."""
    from idat_zoo.prediction import Picture, open_picture

    for path in paths:
        if path is None:
            yield Picture(name=STDIN, content=sys.stdin.buffer.read())
        else:
            yield open_picture(path)


def _print(prediction: "Prediction", *, several: bool) -> None:
    by = f"  {prediction.checkpoint}" if several else ""
    typer.echo(screen.plain(f"{prediction.image}{by}"))
    for ranked in prediction.ranked:
        name = ranked.name or f"class {ranked.number}"
        typer.echo(screen.plain(f"  {100 * ranked.probability:5.1f} %  {name}"))


def _as_json(prediction: "Prediction") -> dict[str, object]:
    """Without what does not apply: a name where there is none, a fault where all went well."""
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
