"""Printing the metrics of a result: in per cent, with tables by class."""

from collections.abc import Sequence

import typer
from rich.text import Text

from idat_zoo.cli import screen
from idat_zoo.metrics import Metrics, percent

LARGEST_MATRIX = 20  # classes
SHORTEST_NAME = 8  # characters of a class name beside its row of the matrix
MOST_MISTAKES = 10


def print_metrics(metrics: Metrics) -> None:
    """Print balanced accuracy, calibration error, scores by class, and the confusion matrix."""
    typer.echo(
        f"  balanced accuracy {percent(metrics.balanced_accuracy)}, "
        f"calibration error {percent(metrics.calibration_error)}\n"
    )
    names = [" ".join(c.name.splitlines()) for c in metrics.per_class if c.name is not None]
    screen.print_table(
        ["class", *(["name"] if names else []), "precision", "recall", "f1", "images"],
        [
            [str(i), *names[i : i + 1], *map(percent, (c.precision, c.recall, c.f1)), str(c.count)]
            for i, c in enumerate(metrics.per_class)
        ],
    )
    room = _room_for_names(metrics)
    if len(metrics.per_class) <= LARGEST_MATRIX and room >= (SHORTEST_NAME if names else 0):
        typer.echo("\nconfusion: rows are the true class, columns the predicted one")
        numbers = [str(i) for i in range(len(metrics.per_class))]
        screen.print_table(
            ["", *([""] if names else []), *numbers],
            [
                [str(i), *(_shortened(name, room) for name in names[i : i + 1]), *map(str, row)]
                for i, row in enumerate(metrics.confusion)
            ],
        )
    else:
        _print_mistakes(metrics, names)


def _room_for_names(metrics: Metrics) -> int:
    """The width that a row of the confusion matrix leaves for the name of its class."""
    widest = [max(map(len, map(str, column))) for column in zip(*metrics.confusion, strict=True)]
    numbers = [max(width, len(str(i))) for i, width in enumerate(widest)]
    taken = len(str(len(numbers) - 1)) + sum(width + 2 for width in numbers)
    return screen.width() - taken - 2


def _shortened(name: str, room: int) -> str:
    text = Text(screen.plain(name))  # knows that some characters are two columns wide
    text.truncate(room, overflow="ellipsis")
    return text.plain


def _print_mistakes(metrics: Metrics, names: Sequence[str]) -> None:
    """Print the most frequent confusions, for a matrix too wide to print whole."""
    mistakes = [
        (count, true, predicted)
        for true, row in enumerate(metrics.confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    if not mistakes:
        return

    often = sorted(mistakes, key=lambda mistake: -mistake[0])[:MOST_MISTAKES]
    typer.echo("\nconfused most often")
    screen.print_table(
        ["images", "true class", "predicted class"],
        [
            [str(count), *(" ".join([str(k), *names[k : k + 1]]) for k in (true, predicted))]
            for count, true, predicted in often
        ],
    )
