"""How a result looks to a person: per cent, intervals, tables by class."""

from collections.abc import Iterator

import typer

from idat_zoo.cli import screen
from idat_zoo.metrics import Metrics
from idat_zoo.report.layout import BASELINE_TITLES
from idat_zoo.results import Result

LARGEST_MATRIX = 20  # classes; a wider confusion matrix does not fit a terminal


def percent(fraction: float) -> str:
    """0.9412 -> 94.1 %."""
    return f"{100 * fraction:.1f} %"


def interval(bounds: tuple[float, float]) -> str:
    """Bounds of a 95 % interval, in per cent."""
    low, high = bounds
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def summary(result: Result) -> Iterator[str]:
    """The lines that say how a run or an evaluation went."""
    teacher = result.recipe.pair.teacher
    trained_with = "alone" if teacher is None else f"with {screen.plain(teacher.name)}"
    if result.recipe.protocol == "imported":
        trained_with = "trained elsewhere (protocol = imported)"
    yield (
        f"{result.label} {trained_with}, seed {result.seed}: top-1 {percent(result.top1)} "
        f"{interval(result.top1_interval)} on {result.student.count} test images"
    )
    if result.baselines:
        yield f"  {against_baselines(result)}"
    if result.teacher is not None:
        yield f"  teacher {percent(result.teacher.top1)} {interval(result.teacher.top1_interval)}"
    if result.top1_best_on_test is not None:
        best = percent(result.top1_best_on_test)
        yield f"  best epoch on test {best} (protocol = paper: chosen on test, optimistic)"
    if result.selection is not None:
        chosen = result.selection.tried[result.selection.chosen]
        values = ", ".join(f"{name} = {value}" for name, value in chosen.values.items())
        count = len(result.selection.tried)
        yield f"  chosen on val200 from {count}: {values} ({percent(chosen.val_top1)})"
    trained = result.parameters.adapter + result.parameters.head
    yield (
        f"  {trained:,} trained numbers (adapter {result.parameters.adapter:,}), "
        f"{result.seconds:.0f} s on {result.device}"
    )


def against_baselines(result: Result) -> str:
    """Raw-pixel baselines of the task, and whether the adapter beats them."""
    named = ", ".join(
        f"{BASELINE_TITLES.get(name, name)} {percent(top1)}"
        for name, top1 in result.baselines.items()
    )
    beaten = result.top1 > max(result.baselines.values())
    verdict = "the adapter beats them" if beaten else "the adapter does not beat them"
    return f"raw pixels: {named}; {verdict}"


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
