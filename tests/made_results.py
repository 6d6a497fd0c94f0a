"""Results made by hand, and their numbers, for the tests of reports."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conftest import toy_recipe
from idat_zoo import files
from idat_zoo.intervals import wilson_interval
from idat_zoo.metrics import Metrics
from idat_zoo.recipe import Recipe, Task
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.registry import averaged_tasks, load_registry
from idat_zoo.report import build
from idat_zoo.report.benchmark import benchmarks
from idat_zoo.report.build import Report
from idat_zoo.report.layout import lay_out
from idat_zoo.report.markdown import as_markdown
from idat_zoo.results import Parameters, Result, write_result

COUNT = 100
T_2 = 4.302652729749462  # Student's 0.975 quantile for 3 seeds
NOWHERE = Path("nowhere/result.json")
BASELINES = {"logistic_regression": 0.96, "nearest_neighbour": 0.98}
Found = tuple[Path, Result]
AVERAGED = averaged_tasks(load_registry())
BENCHMARKS = {known.suite: known for known in benchmarks(AVERAGED)}
MINI, VTAB_1K = BENCHMARKS["mini"], BENCHMARKS["vtab1k"]


def build_report(found: Sequence[Found]) -> Report:
    """The report over the built-in shelf's tasks, as `idat report` builds it."""
    return build.build_report(found, averaged=AVERAGED)


def scored(correct: int) -> Metrics:
    top1, interval = correct / COUNT, wilson_interval(correct, COUNT)
    return Metrics(
        top1=top1,
        top1_interval=interval,
        balanced_accuracy=top1,
        calibration_error=0.0,
        count=COUNT,
        per_class=(),
        confusion=(),
    )


def made(correct: int = 90, recipe: Recipe | None = None, **fields: Any) -> Found:
    """A result with so many of 100 images right, where no file is."""
    recipe = recipe or toy_recipe()
    digests = {"student": "5" * 64} | ({"teacher": "7" * 64} if recipe.pair.teacher else {})
    values: dict[str, Any] = {
        "kind": "run",
        "top1": correct / COUNT,
        "top1_interval": wilson_interval(correct, COUNT),
        "student": scored(correct),
        "parameters": Parameters(adapter=1536, head=250, backbone=19272),
        "recipe": recipe,
        "recipe_hash": recipe_hash(recipe),
        "seed": 0,
        "data_fingerprint": f"data of {recipe.task.id}",
        "backbone_sha256": digests,
        "device": "cpu, 1 thread",
        "versions": {"torch": "2.6"},
        "seconds": 1.0,
        "finished": "2026-01-01T00:00:00+00:00",
    }
    return NOWHERE, Result(**(values | fields))


def on_task(task: str, **fields: Any) -> Recipe:
    """The toy recipe on a task of VTAB-1K or of the mini suite."""
    suite, group = next(
        (known.suite, group)
        for known in BENCHMARKS.values()
        for group, tasks in known.groups.items()
        if task in tasks
    )
    spec: dict[str, Any] = {"id": task, "suite": suite, "group": group}
    changed = Task(**spec, num_classes=10, num_test=(COUNT,))
    return toy_recipe(**fields).model_copy(update={"task": changed})


def predicted(right: Sequence[bool]) -> Tensor:
    """Logits of two classes that are right about class 1 where asked."""
    return torch.tensor([[0.0, 1.0] if is_right else [1.0, 0.0] for is_right in right])


def written(folder: Path, right: Sequence[bool], recipe: Recipe, seed: int = 0) -> Found:
    """A result in a folder with its predictions, right about the images asked for."""
    count = len(right)
    tensors = {
        "index": torch.arange(count),
        "target": torch.ones(count, dtype=torch.int64),
        "student": predicted(right),
    }
    file = folder / "predictions.safetensors"
    files.write_whole(file, files.dump_tensors(tensors))
    result = made(
        round(COUNT * sum(right) / count),
        recipe,
        seed=seed,
        top1=sum(right) / count,
        files={file.name: files.sha256(file)},
    )[1]
    write_result(folder / "result.json", result)
    return folder / "result.json", result


def labels(report: Report) -> list[dict[str, Any]]:
    return [row.label for row in report.rows]


def text(report: Report) -> str:
    return as_markdown(lay_out(report))


ALONE, TAUGHT = toy_recipe(teacher=False), toy_recipe()
