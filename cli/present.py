"""How a result's metrics look to a person: per cent, tables by class."""

import typer

from idat_zoo.cli import screen
from idat_zoo.metrics import Metrics, percent

LARGEST_MATRIX = 20  # classes; a wider confusion matrix does not fit a terminal


def print_metrics(metrics: Metrics) -> None:
    """Balanced accuracy, calibration, and the tables by class."""
    typer.echo(
        f"  balanced accuracy {percent(metrics.balanced_accuracy)}, "
        f"calibration error {percent(metrics.calibration_error)}\n"
    )
    screen.print_table(
        ["class", "precision", "recall", "f1", "images"],
        [
            [str(i), percent(c.precision), percent(c.recall), percent(c.f1), str(c.count)]
            for i, c in enumerate(metrics.per_class)
        ],
    )
    if len(metrics.per_class) <= LARGEST_MATRIX:
        typer.echo("\nconfusion: rows are the true class, columns the predicted one")
        names = [str(i) for i in range(len(metrics.per_class))]
        rows = enumerate(metrics.confusion)
        screen.print_table(["", *names], [[str(i), *map(str, row)] for i, row in rows])
