"""The recipes and seeds that the options of `idat train` ask for."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from idat_zoo.cli import screen
from idat_zoo.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from idat_zoo.data.reading import Reading
    from idat_zoo.recipe import Recipe
    from idat_zoo.registry import Family


def check_alone(teacher: str | None, control: str | None, words: Sequence[str]) -> None:
    """Check that nothing else names the teacher that --teacher-from names. Raises: UsageError."""
    named = [word for word in words if word.startswith("teacher_adapter")]
    named += ["--teacher"] * (teacher is not None) + ["--control"] * (control is not None)
    if named:
        raise UsageError(
            f"--teacher-from names a trained teacher with its adapter; leave out {named[0]}."
        )


def seeds_of(seed: int | None, several: str | None) -> list[int]:
    """The seeds of `--seed` or `--seeds`; 0 without either. Raises: UsageError."""
    if several is None:
        return [seed or 0]
    if seed is not None:
        raise UsageError("--seed and --seeds say the same; give one of them.")
    words = [word.strip() for word in several.split(",")]
    if not all(word.isascii() and word.isdecimal() for word in words):
        raise UsageError(f"--seeds {several}: expected whole numbers with commas, e.g. 0,1,2")
    return [int(word) for word in words]


def recipes_of(
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
    """The recipes of the options: one per task, adapter and combination of override values."""
    from idat_zoo.registry import (
        FOLDER,
        compose_recipe,
        load_registry,
        recipe_from_file,
        resolve_adapters,
        resolve_tasks,
        spread_words,
        with_folder,
    )

    settings = spread_words(words)
    registry = load_registry(shelf)
    if file is not None:
        given = {"--task": task, "--adapter": adapter, "--pair": pair}
        twice = [name for name, value in given.items() if value is not None]
        if twice:
            raise UsageError(f"--recipe FILE already says what {' and '.join(twice)} would say.")
        return [
            recipe_from_file(file, registry=registry, teacher=teacher, overrides=own)
            for own in settings
        ]
    if task is None or adapter is None:
        raise UsageError(
            "--task and --adapter say what to train (or --recipe FILE).",
            hint="Needs no download: idat train --task digits --adapter lora",
        )
    if FOLDER in task.split(",") and task != FOLDER:
        raise UsageError("--task folder stands alone: --data-dir names one folder of images.")
    if task == FOLDER:
        if data_dir is None:
            raise UsageError(
                "--task folder trains on the images of --data-dir, which is not given."
            )
        registry, task = with_folder(registry, data_dir, reading)
    families = resolve_adapters(adapter, registry)
    _check_options(families, words)
    return [
        compose_recipe(registry, one.id, family.word, pair=pair, teacher=teacher, overrides=own)
        for one in resolve_tasks(task, registry)
        for family in families
        for own in settings
    ]


def controlled(
    recipes: Sequence["Recipe"], name: str, teacher: str | None, shelf: Path | None
) -> list["Recipe"]:
    """The control of each recipe. Raises: UsageError; UnknownNameError."""
    from idat_zoo.registry import load_registry
    from idat_zoo.registry.controls import CONTROLS

    if name not in CONTROLS:
        raise UnknownNameError("control", name, CONTROLS)
    if teacher is not None:
        raise UsageError("--control and --teacher both choose the teacher; give one of them.")
    registry = load_registry(shelf)
    return [CONTROLS[name].apply(one, registry) for one in recipes]


def _check_options(families: Sequence["Family"], words: Sequence[str]) -> None:
    """Check that an adapter option is one of all families or of none. Raises: UsageError."""
    for word in words:
        prefix, _, option = word.partition("=")[0].partition(".")
        without = [family.word for family in families if option not in family.options]
        if prefix == "adapter" and 0 < len(without) < len(families):
            raise UsageError(
                f"'{word}' does not fit all adapters that are asked for: {', '.join(without)} "
                f"{'has' if len(without) == 1 else 'have'} no option '{option}'.",
                hint="Train those with a command of their own.",
            )


def without_misfits(recipes: Sequence["Recipe"]) -> list["Recipe"]:
    """The recipes whose adapter fits its backbones; a note is printed for each one left out."""
    with screen.waiting("loading torch"):
        from idat_zoo.backbones.pair import check_carried

    carried: list[Recipe] = []
    reasons: dict[str, None] = {}
    for recipe in recipes:
        try:
            check_carried(recipe)
        except UsageError as error:
            reasons[error.message] = None
        else:
            carried.append(recipe)
    for message in reasons:
        screen.note(f"left out: {message}")
    return carried
