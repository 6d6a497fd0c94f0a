"""The option --weights: files of weights of the user's own, by the role of their backbone."""

from typing import Annotated

import typer

WEIGHTS_FORMATS = "safetensors by timm's names, or .npz of timm's ViTs"
WeightsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="ROLE=FILE",
        show_default=False,
        help=f"Your own weights of the student or teacher: {WEIGHTS_FORMATS}.",
    ),
]


def _give_weights(context: typer.Context, words: list[str] | None) -> list[str] | None:
    """Take the files as the only own weights of this process, but never to complete a word."""
    if words and not context.resilient_parsing:
        from idat_zoo.own_weights import parse_roles, take_only

        for path in parse_roles(words).values():
            take_only(path)
    return words


GivenWeightsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="ROLE=FILE",
        callback=_give_weights,
        show_default=False,
        help="The weights of your own that the adapter was trained on, if they are not found.",
    ),
]
