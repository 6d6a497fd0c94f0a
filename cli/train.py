"""`idat train`: recipes to run folders, one task after the other."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from idat_zoo.cli import screen
from idat_zoo.cli.options import (
    AdapterOption,
    DataDirOption,
    DeviceOption,
    DryRunOption,
    JsonOption,
    MegapixelsOption,
    OutOption,
    Overrides,
    PairOption,
    RecipeOption,
    ResumeOption,
    SeedOption,
    ShelfOption,
    SkipCorruptOption,
    StreamTestOption,
    TaskOption,
    TeacherOption,
    YesOption,
)
from idat_zoo.errors import UsageError, ZooError

if TYPE_CHECKING:
    from idat_zoo.data.reading import Reading
    from idat_zoo.recipe import Recipe, Task
    from idat_zoo.results import Result

RUNS = Path("runs")
DEFAULT_PAIR = "vit_s_to_vit_b"
"""What one's own images are trained with unless --pair names another."""
SOME_FAILED = 3


def train(
    overrides: Overrides = None,
    task: TaskOption = None,
    adapter: AdapterOption = None,
    pair: PairOption = None,
    teacher: TeacherOption = None,
    recipe: RecipeOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    data_dir: DataDirOption = None,
    out: OutOption = None,
    shelf: ShelfOption = None,
    resume: ResumeOption = False,
    dry_run: DryRunOption = False,
    skip_corrupt: SkipCorruptOption = False,
    stream_test: StreamTestOption = False,
    max_megapixels: MegapixelsOption = 64,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Train an adapter with its teacher, evaluate it once on test, keep everything in a folder.

    For example: idat train --task digits --adapter lora --seed 1 epochs=20 adapter.rank=4
    """
    from idat_zoo.data.reading import Reading

    reading = Reading(
        skip_corrupt=skip_corrupt, stream_test=stream_test, max_megapixels=max_megapixels
    )
    recipes = _recipes(
        task, adapter, pair, teacher, recipe, overrides or [], shelf, data_dir, reading
    )
    place = out or RUNS
    if dry_run:
        _print_plans(recipes, seed=seed, device=device, data_dir=data_dir, out=place, json=json)
        return
    results, failures = _train_all(
        recipes,
        seed=seed,
        device=device,
        data_dir=data_dir,
        reading=reading,
        out=place,
        resume=resume,
        yes=yes,
    )
    _print_results(results, seed=seed, out=place, json=json)
    if failures:
        raise typer.Exit(SOME_FAILED if results else failures[-1].exit_code)


def _recipes(
    task: str | None,
    adapter: str | None,
    pair: str | None,
    teacher: str | None,
    file: Path | None,
    words: Sequence[str],
    shelf: Path | None,
    data_dir: Path | None,
    reading: "Reading",
) -> list["Recipe"]:
    """The recipes that the options ask for, one a task."""
    from idat_zoo.registry import (
        FOLDER,
        compose_recipe,
        load_registry,
        recipe_from_file,
        resolve_tasks,
    )

    registry = load_registry(shelf)
    if file is not None:
        given = {"--task": task, "--adapter": adapter, "--pair": pair}
        twice = [name for name, value in given.items() if value is not None]
        if twice:
            raise UsageError(f"--recipe FILE already says what {' and '.join(twice)} would say.")
        return [recipe_from_file(file, registry=registry, teacher=teacher, overrides=words)]
    if task is None or adapter is None:
        raise UsageError(
            "--task and --adapter say what to train (or --recipe FILE).",
            hint="Needs no download: idat train --task digits --adapter lora",
        )
    if FOLDER in task.split(",") and task != FOLDER:
        raise UsageError("--task folder stands alone: --data-dir names one folder of images.")
    if task == FOLDER:
        own = _folder_task(data_dir, reading)
        registry, task = registry.with_task(own, pair=DEFAULT_PAIR), own.id
    return [
        compose_recipe(registry, one.id, adapter, pair=pair, teacher=teacher, overrides=words)
        for one in resolve_tasks(task, registry)
    ]


def _folder_task(data_dir: Path | None, reading: "Reading") -> "Task":
    from idat_zoo.data import describe_folder

    if data_dir is None:
        raise UsageError("--task folder trains on the images of --data-dir, which is not given.")
    return describe_folder(data_dir, reading)


def _train_all(
    recipes: Sequence["Recipe"],
    *,
    seed: int,
    device: str,
    data_dir: Path | None,
    reading: "Reading",
    out: Path,
    resume: bool,
    yes: bool,
) -> tuple[list["Result"], list[ZooError]]:
    """Run each; the fault of one of several is told, and the others go on."""
    from idat_zoo.cli.progress import LiveProgress
    from idat_zoo.runs import run

    results: list[Result] = []
    failures: list[ZooError] = []
    for recipe in recipes:
        try:
            with LiveProgress() as progress:
                results.append(
                    run(
                        recipe,
                        seed=seed,
                        device=device,
                        data_dir=data_dir,
                        reading=reading,
                        out=out,
                        resume=resume,
                        download=yes or _agrees_to_download(recipe),
                        progress=progress,
                    )
                )
        except ZooError as error:
            if len(recipes) == 1 or isinstance(error, UsageError):
                raise
            screen.print_error(error)
            failures.append(error)
    return results, failures


def _agrees_to_download(recipe: "Recipe") -> bool:
    """Ask on a terminal; elsewhere nothing is downloaded without --yes."""
    from idat_zoo.backbones.frozen import missing_weights

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    specs = (recipe.pair.teacher, recipe.pair.student)
    missing = [repo for spec in specs if spec is not None and (repo := missing_weights(spec))]
    if not missing:
        return False
    return typer.confirm(f"Download weights from the Hub: {', '.join(missing)}?", err=True)


def _print_results(results: Sequence["Result"], *, seed: int, out: Path, json: bool) -> None:
    from idat_zoo.cli import present
    from idat_zoo.run_folder import run_folder

    folders = [run_folder(out, result.recipe, seed) for result in results]
    if json:
        documents = [
            {"folder": str(folder), **result.as_json()}
            for folder, result in zip(folders, results, strict=True)
        ]
        screen.print_json({"results": documents})
        return
    for folder, result in zip(folders, results, strict=True):
        for line in present.summary(result):
            typer.echo(line)
        typer.echo(f"  {folder}")


def _print_plans(
    recipes: Sequence["Recipe"],
    *,
    seed: int,
    device: str,
    data_dir: Path | None,
    out: Path,
    json: bool,
) -> None:
    """What each recipe is, where it would lie, and what is missing for it."""
    from idat_zoo.engine.precision import find_device, resolve_precision
    from idat_zoo.recipe_toml import dump_recipe
    from idat_zoo.run_folder import run_folder
    from idat_zoo.runs import missing_inputs

    plans = []
    for asked in recipes:
        recipe = resolve_precision(asked, find_device(device))
        plans.append(
            {
                "folder": str(run_folder(out, recipe, seed)),
                "missing": missing_inputs(recipe, data_dir, seed=seed),
                "recipe": recipe.model_dump(mode="json", exclude_none=True),
            }
        )
        if not json:
            missing = "; ".join(plans[-1]["missing"]) or "nothing"
            typer.echo(f"# folder: {plans[-1]['folder']}\n# missing: {missing}")
            typer.echo(dump_recipe(recipe))
    if json:
        screen.print_json({"plans": plans})
