"""`idat list`: what the shelves hold, what has been trained, what can be used on this machine."""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from idat_zoo.cli import shelf_rows
from idat_zoo.cli.imports import uncollected
from idat_zoo.cli.list_published import list_published
from idat_zoo.cli.list_runs import list_runs
from idat_zoo.cli.options import (
    RUNS,
    AdapterOption,
    DataDirOption,
    JsonOption,
    PairOption,
    PluginOption,
    ShelfOption,
    TaskOption,
)
from idat_zoo.cli.overview import print_overview
from idat_zoo.cli.screen import end, note, print_json, print_table
from idat_zoo.cli.shelf_rows import RECIPE_FIELDS, Row
from idat_zoo.errors import UsageError, ZooError


class Kind(StrEnum):
    """What `idat list` can list."""

    RECIPES = "recipes"
    ADAPTERS = "adapters"
    TERMS = "terms"
    CONTROLS = "controls"
    STUDIES = "studies"
    PAIRS = "pairs"
    BACKBONES = "backbones"
    TASKS = "tasks"
    RUNS = "runs"
    SHIPPED = "shipped"
    PUBLISHED = "published"


COLUMNS = {
    Kind.RECIPES: ("name", *RECIPE_FIELDS, "options"),
    Kind.ADAPTERS: ("name", "title", "merge", "stack", "paper", "year"),
    Kind.TERMS: ("name", "title", "reads", "options", "paper", "year"),
    Kind.CONTROLS: ("name", "title", "metric"),
    Kind.STUDIES: ("name", "title"),
    Kind.SHIPPED: ("name", "task", "adapter", "pair", "trained", "top1", "95 %"),
    Kind.PAIRS: ("name", "teacher", "student", "weights_here"),
    Kind.BACKBONES: ("name", "timm", "weights", "img_size", "licence", "weights_here"),
    Kind.TASKS: (
        "name",
        "suite",
        "group",
        "num_classes",
        "num_test",
        "pair",
        "images_here",
        "aliases",
    ),
}
FROM_HERE_WITH_COMMAS = 10_000  # larger than years and image sizes
ON_A_PAIR = ("name", "student", "teacher", *COLUMNS[Kind.ADAPTERS][2:])
"""The columns of `list adapters --pair`: with the number of trained parameters on each network."""


def list_shelves(
    kind: Annotated[
        Kind | None,
        typer.Argument(metavar="[KIND]", case_sensitive=False, help=f"One of: {', '.join(Kind)}."),
    ] = None,
    glob: Annotated[
        str | None,
        typer.Argument(
            metavar="[GLOB]",
            help="Only names like this, e.g. '*/lora/*'; of runs, the folder above them (runs/).",
        ),
    ] = None,
    task: TaskOption = None,
    adapter: AdapterOption = None,
    pair: PairOption = None,
    shelf: ShelfOption = None,
    plugin: PluginOption = None,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """What there is and what runs here now, or all of one kind."""
    with uncollected():
        from idat_zoo.registry import load_registry

    filters = {"--task": task, "--adapter": adapter, "--pair": pair}
    given = [flag for flag, value in filters.items() if value is not None]
    if given and kind != Kind.RECIPES and (kind, given) != (Kind.ADAPTERS, ["--pair"]):
        raise UsageError(
            f"{', '.join(given)}: only recipes can be filtered so, and adapters by --pair",
            hint="idat list recipes --task dtd",
        )
    if kind == Kind.RUNS:
        list_runs(Path(glob or RUNS), data_dir, json=json)
        return
    registry = load_registry(shelf)
    if kind is None:
        print_overview(registry, data_dir, json=json)
        return
    if kind == Kind.PUBLISHED:
        list_published(registry, glob, json=json)
        return
    if kind == Kind.RECIPES:
        rows = shelf_rows.recipe_rows(registry, glob, task=task, adapter=adapter, pair=pair)
    else:
        every = {
            Kind.ADAPTERS: lambda: shelf_rows.adapter_rows(registry, pair),
            Kind.TERMS: lambda: shelf_rows.term_rows(),
            Kind.CONTROLS: lambda: shelf_rows.control_rows(),
            Kind.STUDIES: lambda: shelf_rows.study_rows(shelf),
            Kind.SHIPPED: lambda: shelf_rows.shipped_rows(),
            Kind.PAIRS: lambda: shelf_rows.pair_rows(registry),
            Kind.BACKBONES: lambda: shelf_rows.backbone_rows(registry),
            Kind.TASKS: lambda: shelf_rows.task_rows(registry, data_dir),
        }[kind]()
        rows = [row for row in every if shelf_rows.matches(row["name"], glob)]
    if json:
        print_json({kind.value: rows})
    elif rows:
        rows = [_in_per_cent(row) for row in rows] if kind == Kind.SHIPPED else rows
        _print_rows(rows, COLUMNS[kind] if kind != Kind.ADAPTERS or pair is None else ON_A_PAIR)
        if kind == Kind.ADAPTERS and glob is None:
            note("and peft:NAME, any tuner of PEFT: docs/peft.md tells which")
        if kind == Kind.PAIRS and glob is None:
            note("and of each PAIR_swapped, the roles exchanged, and PAIR_twins, two students")
    if not rows:
        end(ZooError(f"no {kind.value} match" + (f" '{glob}'" if glob else "") + "."))


def _in_per_cent(row: Row) -> Row:
    from idat_zoo.metrics import interval, percent

    low, high = row["top1_interval"]
    return {**row, "top1": percent(row["top1"]), "95 %": interval((low, high))}


def _print_rows(rows: list[Row], columns: Iterable[str]) -> None:
    names = [row["name"] + ("*" if row["own"] else "") for row in rows]
    keys = [key for key in columns if key != "name"]
    print_table(
        ["name", *(key.replace("_", " ") for key in keys)],
        [[name, *(_cell(row[key]) for key in keys)] for name, row in zip(names, rows, strict=True)],
    )
    if any(row["own"] for row in rows):
        note("* from your own shelf or a plugin")


def _cell(value: Any) -> str:  # whatever JSON can hold
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int):
        return f"{value:,}" if value >= FROM_HERE_WITH_COMMAS else str(value)
    if isinstance(value, dict):
        return " ".join(f"{key}={_cell(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    return str(value)
