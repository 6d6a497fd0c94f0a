"""`idat list`, `show`, `cp`, `validate` and `env`: what is on the shelves and on this machine."""

import fnmatch
import os
import platform
import shlex
import textwrap
from collections.abc import Iterable, Mapping
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idat_zoo.cli.options import (
    DATA_VARIABLE,
    RUNS,
    SHELF_VARIABLE,
    AdapterOption,
    DataDirOption,
    JsonOption,
    PairOption,
    PluginOption,
    ShelfOption,
    TaskOption,
)
from idat_zoo.cli.screen import end, note, plain, print_json, print_table, width
from idat_zoo.errors import RecipeError, UnknownNameError, UsageError, ZooError, way_to_write

if TYPE_CHECKING:
    from idat_zoo.recipe import Backbone, Frozen, Pair, Recipe, Task
    from idat_zoo.registry import Registry
    from idat_zoo.runs.states import RunState

Row = dict[str, Any]

TRY = ("idat train --task digits --adapter lora", "idat eval builtin:digits-lora")
MANY = 4
PACKAGES = ("torch", "timm", "safetensors", "huggingface-hub", "scikit-learn", "numpy", "typer")


class Kind(StrEnum):
    """What `idat list` can list."""

    RECIPES = "recipes"
    ADAPTERS = "adapters"
    PAIRS = "pairs"
    BACKBONES = "backbones"
    TASKS = "tasks"
    RUNS = "runs"
    PUBLISHED = "published"


COLUMNS = {
    Kind.RECIPES: ("name", "lr", "weight_decay", "drop_path", "epochs", "distillation", "options"),
    Kind.ADAPTERS: ("name", "title", "merge", "stack", "paper", "year"),
    Kind.PUBLISHED: ("name", "task", "adapter", "pair", "trained", "top1", "95 %"),
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
FROM_HERE_WITH_COMMAS = 10_000  # above years and sides of images
ON_A_PAIR = ("name", "student", "teacher", *COLUMNS[Kind.ADAPTERS][2:])
"""What adapters have on a pair: the numbers that they train."""


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
    from idat_zoo.registry import load_registry

    filters = {"--task": task, "--adapter": adapter, "--pair": pair}
    given = [flag for flag, value in filters.items() if value is not None]
    if given and kind != Kind.RECIPES and (kind, given) != (Kind.ADAPTERS, ["--pair"]):
        raise UsageError(
            f"{', '.join(given)}: only recipes can be filtered so, and adapters by --pair",
            hint="idat list recipes --task dtd",
        )
    if kind == Kind.RUNS:
        _list_runs(Path(glob or RUNS), data_dir, json=json)
        return
    registry = load_registry(shelf)
    if kind is None:
        _print_overview(registry, data_dir, json=json)
        return
    if kind == Kind.RECIPES:
        rows = _recipe_rows(registry, glob, task=task, adapter=adapter, pair=pair)
    else:
        every = {
            Kind.ADAPTERS: lambda: _adapter_rows(registry, pair),
            Kind.PUBLISHED: lambda: _published_rows(),
            Kind.PAIRS: lambda: _pair_rows(registry),
            Kind.BACKBONES: lambda: _backbone_rows(registry),
            Kind.TASKS: lambda: _task_rows(registry, data_dir),
        }[kind]()
        rows = [row for row in every if _matches(row["name"], glob)]
    if json:
        print_json({kind.value: rows})
    elif rows:
        rows = [_in_per_cent(row) for row in rows] if kind == Kind.PUBLISHED else rows
        _print_rows(rows, COLUMNS[kind] if kind != Kind.ADAPTERS or pair is None else ON_A_PAIR)
        if kind == Kind.ADAPTERS and glob is None:
            note("and peft:NAME, any tuner of PEFT: docs/peft.md tells which")
    if not rows:
        end(ZooError(f"no {kind.value} match" + (f" '{glob}'" if glob else "") + "."))


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE",
            help="A recipe (pair/adapter/task or a file), adapter, pair, task or backbone.",
        ),
    ],
    shelf: ShelfOption = None,
    plugin: PluginOption = None,
    json: JsonOption = False,
) -> None:
    """One recipe, adapter, pair, task or backbone, written out."""
    import tomli_w

    from idat_zoo.registry import load_registry

    kind, comment, document = _look_up(name, load_registry(shelf))
    if json:
        print_json({"kind": kind, kind: document})
        return
    numbers = document.pop("parameters", {}) if kind == "adapter" else {}
    typer.echo(comment + tomli_w.dumps(document), nl=False)
    if numbers:
        typer.echo()
        print_table(
            ["numbers trained on", "student", "teacher"],
            [[pair, *(f"{count:,}" for count in own.values())] for pair, own in numbers.items()],
        )


def copy(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="pair/adapter/task")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")],
    shelf: ShelfOption = None,
    plugin: PluginOption = None,
    force: Annotated[bool, typer.Option("--force", help="Write over FILE.")] = False,
    json: JsonOption = False,
) -> None:
    """Copy a recipe to a file of your own, for `train --recipe FILE`."""
    from idat_zoo.recipe_toml import dump_recipe
    from idat_zoo.registry import find_recipe, load_registry

    registry = load_registry(shelf)
    found = find_recipe(registry, recipe)
    try:
        if file.exists() and not force:
            raise UsageError(f"'{file}' exists already", hint="--force writes over it.")
        _write_whole(file, _provenance(found, registry) + dump_recipe(found))
    except OSError as error:
        raise ZooError(
            f"cannot write '{file}': {error.strerror}",
            hint=way_to_write(error, other="another FILE"),
        ) from None
    if json:
        print_json({"file": str(file), "recipe": _dump(found)})
    else:
        typer.echo(file)
    word = shlex.quote(str(file))
    note(f"Edit it, then: idat validate {word} && idat train --recipe {word}")


def validate(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE|DIR]…", help="Recipe files, and shelves as folders."),
    ] = None,
    shelf: ShelfOption = None,
    plugin: PluginOption = None,
    json: JsonOption = False,
) -> None:
    """Check recipe files and shelves; every fault is listed.

    Without FILE or DIR: the shelves in use. Backbones that did not ship are held against the timm
    that is installed; nothing is fetched.
    """
    faults: list[str] = []
    notes: list[str] = []
    for path in paths or (None,):
        found = _faults_of(path, shelf, notes)
        faults += found
        if not (found or json):
            typer.echo(f"ok  {path or shelf or 'built-in shelf'}")
    if json:
        print_json({"valid": not faults, "faults": faults, "notes": notes})
    else:
        for told in dict.fromkeys(notes):
            note(told)
    if faults:
        end(RecipeError(faults))


def env(json: JsonOption = False) -> None:
    """Versions, devices and folders, for a bug report."""
    from idat_zoo.registry.presence import hub_cache

    facts = {
        "idat-zoo": _version("idat-zoo"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{package: _version(package) for package in PACKAGES},
        **_device_facts(),
        "hub cache": str(hub_cache()),
        SHELF_VARIABLE: os.environ.get(SHELF_VARIABLE, "not set"),
        DATA_VARIABLE: os.environ.get(DATA_VARIABLE, "not set"),
    }
    if json:
        print_json({"env": facts})
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            typer.echo(f"{name.ljust(width)}  {value}")


def _write_whole(file: Path, text: str) -> None:
    beside = file.parent / f".{file.name}.part"
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def _list_runs(place: Path, data_dir: Path | None, *, json: bool) -> None:
    """Finished and unfinished runs, what some ended with, and the commands that go on with them."""
    from idat_zoo.runs.states import find_runs, resume_command

    faults: list[str] = []
    runs = find_runs(place, faults)
    resume = {run.folder: resume_command(run.folder, data_dir) for run in runs if run.waits}
    if json:
        print_json(
            {"runs": [_run_facts(run, resume.get(run.folder)) for run in runs], "faults": faults}
        )
    elif runs:
        rows = [[run.label, str(run.seed), _how_far(run)] for run in runs]
        print_table(["run", "seed", "state"], rows)
        ended = [f"{run.folder}\n{_indented(run.fault)}" for run in runs if run.fault]
        for title, lines in (("Ended with:", ended), ("To go on:", dict.fromkeys(resume.values()))):
            if lines:
                typer.echo(plain("\n".join(["", title, *lines])))
    for fault in faults:
        note(fault)
    if not runs:
        hint = "`idat train` makes runs/, or what --out names: idat list runs DIR"
        end(ZooError(f"no runs lie below '{place}'.", hint=hint))


def _indented(text: str) -> str:
    return textwrap.fill(
        text, width(), initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )


def _how_far(run: "RunState") -> str:
    if run.top1 is not None:
        return f"finished, top-1 {100 * run.top1:.1f} %" + (", diverged" if run.diverged else "")
    if run.state == "not begun":
        return run.state
    return f"{run.state}, epoch {run.epoch} of {run.epochs}"


def _run_facts(run: "RunState", resume: str | None) -> Row:
    facts = {
        "folder": str(run.folder),
        "label": run.label,
        "seed": run.seed,
        "state": run.state,
        "epoch": run.epoch,
        "epochs": run.epochs,
        "top1": run.top1,
        "diverged": run.diverged or None,
        "fault": run.fault or None,
        "resume": resume,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _matches(name: str, glob: str | None) -> bool:
    return glob is None or fnmatch.fnmatchcase(name, glob)


def _recipe_rows(
    registry: "Registry",
    glob: str | None,
    *,
    task: str | None,
    adapter: str | None,
    pair: str | None,
) -> list[Row]:
    """Recipes of the tasks' own pairs, or of any pair where GLOB or --pair asks for it."""
    from idat_zoo.registry import ALL, find_recipe, resolve_adapters, resolve_tasks

    tasks = resolve_tasks(task, registry) if task else list(registry.tasks.values())
    adapters = resolve_adapters(adapter or ALL, registry)
    own_pairs = registry.default_pairs
    rows = []
    for each in tasks:
        if pair:
            pairs = [registry.find_pair(pair).name]
        else:
            pairs = list(registry.pairs) if glob else [own_pairs[each.id]]
        names = [f"{p}/{family.word}/{each.id}" for p in pairs for family in adapters]
        rows += [
            _recipe_row(find_recipe(registry, name), name, registry)
            for name in names
            if _matches(name, glob)
        ]
    return rows


def _recipe_row(recipe: "Recipe", name: str, registry: "Registry") -> Row:
    return {
        "name": name,
        "own": registry.is_own("recipe", recipe.pair.name),
        **{field: getattr(recipe, field) for field in COLUMNS[Kind.RECIPES][1:-1]},
        "options": recipe.adapter.options,
    }


def _adapter_rows(registry: "Registry", pair: str | None) -> list[Row]:
    """The families; of a pair alone those that stand on both networks, with what they train."""
    from idat_zoo.registry.parameters import load_parameters

    counts = load_parameters()
    own = None if pair is None else registry.find_pair(pair).name
    unread = registry.adapters.unread
    told = [registry.adapters[name] for name in registry.adapters if name not in unread]
    rows = [
        {
            **family.model_dump(exclude={"options"}),
            "parameters": _dumped(counts.get(family.name, {})),
            **({} if own is None else counts[family.name][own].model_dump()),
            "own": family.plugin is not None,
            "year": family.year or None,
            "options": {name: option.default for name, option in family.options.items()},
        }
        for family in told
        if own is None or own in counts.get(family.name, {})
    ]
    nothing = dict.fromkeys(("merge", "stack", "paper", "year"))
    for name, plugin in unread.items() if own is None else ():
        source = plugin.model_dump(exclude_none=True)
        rows.append({"name": name, "title": str(plugin), **nothing, "plugin": source, "own": True})
    return rows


def _published_rows() -> list[Row]:
    from idat_zoo.registry.published import load_published

    return [
        {**own.model_dump(mode="json"), "name": f"builtin:{own.name}", "own": False}
        for own in load_published()
    ]


def _in_per_cent(row: Row) -> Row:
    from idat_zoo.metrics import interval, percent

    low, high = row["top1_interval"]
    return {**row, "top1": percent(row["top1"]), "95 %": interval((low, high))}


def _pair_rows(registry: "Registry") -> list[Row]:
    return [
        {
            "name": pair.name,
            "own": registry.is_own("pair", pair.name),
            "teacher": pair.teacher.name if pair.teacher else "none",
            "student": pair.student.name,
            "weights_here": _has_weights(pair),
        }
        for pair in registry.pairs.values()
    ]


def _backbone_rows(registry: "Registry") -> list[Row]:
    from idat_zoo.registry.presence import weights_here

    return [
        {
            **backbone.model_dump(),
            "own": registry.is_own("backbone", backbone.name),
            "weights_here": weights_here(backbone),
        }
        for backbone in registry.backbones.values()
    ]


def _task_rows(registry: "Registry", data_dir: Path | None) -> list[Row]:
    from idat_zoo.registry.presence import images_here

    return [
        {
            "name": task.id,
            **task.model_dump(exclude={"id"}),
            "own": registry.is_own("task", task.id),
            "pair": registry.default_pairs[task.id],
            "aliases": registry.aliases_of(task.id),
            "images_here": images_here(task, data_dir),
        }
        for task in registry.tasks.values()
    ]


def _has_weights(pair: "Pair") -> bool:
    from idat_zoo.registry.presence import weights_here

    return all(weights_here(each) for each in (pair.teacher, pair.student) if each is not None)


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


def _print_overview(registry: "Registry", data_dir: Path | None, *, json: bool) -> None:
    """One screen: names by kind, what runs here without a download, and what to try."""
    from idat_zoo.registry import GROUPS, SUITE, task_groups, task_suites
    from idat_zoo.registry.presence import images_here

    tasks = list(registry.tasks.values())
    suites = task_suites(registry)
    by_name = suites | task_groups(registry)
    labels = [label for suite in suites for label in (GROUPS if suite == SUITE else (suite,))]
    groups = {label: by_name[label] for label in labels}
    here = [task for task in tasks if images_here(task, data_dir)]
    pairs = [pair.name for pair in registry.pairs.values() if _has_weights(pair)]
    recipes = len(registry.pairs) * len(registry.adapters) * len(tasks)
    if json:
        print_json(
            {
                "adapters": list(registry.adapters),
                "pairs": list(registry.pairs),
                "tasks": {label: [task.id for task in held] for label, held in groups.items()},
                "runs_here": {"tasks": [task.id for task in here], "pairs": pairs},
                "recipes": recipes,
                "try": TRY,
            }
        )
        return
    sections = {
        f"Adapters ({len(registry.adapters)})": {"": list(registry.adapters)},
        f"Pairs ({len(registry.pairs)}), teacher first": {"": _folded(registry.pairs)},
        f"Tasks ({len(tasks)}); {', '.join(GROUPS[:-1])} and {GROUPS[-1]} are {SUITE}'s": {
            label: _condensed(held) for label, held in groups.items()
        },
        "Runs here now, nothing to download": {"tasks": _condensed(here), "pairs": _folded(pairs)},
    }
    for title, lines in sections.items():
        typer.echo(title)
        for label, names in lines.items():
            typer.echo(_wrapped(label, names))
    typer.echo(f"Recipes ({recipes}): every pair/adapter/task, see `idat list recipes`")
    typer.echo("Try:")
    for command in TRY:
        typer.echo(f"  {command}")


def _condensed(tasks: Iterable["Task"]) -> list[str]:
    """Names of tasks; few-shot ones of the same numbers of images as one: `fewshot_{a,b}_{1,2}`."""
    shots: dict[str, list[str]] = {}
    for task in tasks:
        numbers = shots.setdefault(task.id.removesuffix(f"_{task.shots}"), [])
        numbers += [str(task.shots)] if task.shots else []
    alike: dict[str, list[str]] = {}
    for stem, numbers in shots.items():
        first, cut, last = stem.rpartition("_") if numbers else ("", "", stem)
        around = f"{first}{cut}{{}}_{_braced(numbers)}" if numbers else stem
        alike.setdefault(around, []).append(last)
    return [around.replace("{}", _braced(names)) for around, names in alike.items()]


def _braced(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{{{','.join(words)}}}"


def _folded(names: Iterable[str]) -> list[str]:
    """Names; many that begin with the whole of another as one, as `list` takes it: `a_*`."""
    names = list(names)

    def longer(stem: str) -> list[str]:
        return [name for name in names if name.startswith(f"{stem}_")]

    stems = {name: stem for stem in names if len(longer(stem)) >= MANY for name in longer(stem)}
    return list(dict.fromkeys(f"{stems[name]}_*" if name in stems else name for name in names))


def _wrapped(label: str, names: list[str]) -> str:
    first = f"  {label.ljust(12)}" if label else "  "
    return textwrap.fill(
        " ".join(names) or "none",
        width=80,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_on_hyphens=False,
    )


def _look_up(name: str, registry: "Registry") -> tuple[str, str, Row]:
    """(kind, comment saying where it is written, document) of whatever has this name.

    Raises: UnknownNameError; RecipeError for a recipe file with faults.
    """
    from idat_zoo.registry import FOLDER, find_recipe, recipe_from_file
    from idat_zoo.registry.parameters import load_parameters

    if name.endswith(".toml"):
        recipe = recipe_from_file(Path(name), registry=registry)
        return "recipe", f"# {name}\n\n", _dump(recipe)
    if "/" in name:
        recipe = find_recipe(registry, name)
        return "recipe", _provenance(recipe, registry), _dump(recipe)
    task = registry.find_task(name).id if registry.has_task(name) or name == FOLDER else name
    shelves: list[tuple[str, str, Mapping[str, Frozen]]] = [
        ("adapter", name, registry.adapters),
        ("pair", name, registry.pairs),
        ("task", task, registry.tasks),
        ("backbone", name, registry.backbones),
    ]
    for kind, key, things in shelves:
        if key in things:
            document = _dump(things[key])
            if kind == "adapter":
                document["parameters"] = _dumped(load_parameters().get(key, {}))
            if kind == "task":
                document = {
                    **{f: value for f, value in document.items() if value or f.startswith("num_")},
                    "pair": registry.default_pairs[key],
                    "aliases": registry.aliases_of(key),
                }
            plugin = registry.adapters[key].plugin if kind == "adapter" else None
            place = f"plugin {plugin}" if plugin else registry.files.get((kind, key), "peft")
            return kind, f"# {kind} {key}, from {place}\n\n", document
    everything = [key for _, _, things in shelves for key in things]
    raise UnknownNameError("name", name, everything)


def _dumped(counts: Mapping[str, "Frozen"]) -> Row:
    return {pair: count.model_dump() for pair, count in counts.items()}


def _dump(model: "Frozen") -> Row:
    return model.model_dump(mode="json", exclude_none=True)


def _provenance(recipe: "Recipe", registry: "Registry") -> str:
    """Comment lines: the recipe's id, its tables, and the sources that those files name."""
    from idat_zoo.recipe_toml import read_text
    from idat_zoo.registry import applying_rules, recipe_id

    rules = applying_rules(
        registry, pair=recipe.pair.name, adapter=recipe.adapter.name, task=recipe.task.id
    )
    lines = [f"# {recipe_id(recipe)}, written out by idat-zoo {_version('idat-zoo')}"]
    for file in dict.fromkeys(rule.file for rule in rules):
        tables = ", ".join(f"[{rule.table}]" for rule in rules if rule.file == file)
        lines.append(f"# {tables} of {file.name}")
        source = read_text(file).splitlines()[0]
        lines += [source] if source.startswith("#") else []
    return "\n".join(lines) + "\n\n"


def _faults_of(path: Path | None, shelf: Path | None, notes: list[str]) -> list[str]:
    """Faults of a recipe file, a shelf, or (None) of the shelves in use."""
    from idat_zoo.registry import find_recipe, load_registry, recipe_from_file, unlike_recipe_ids

    faults: list[str] = []
    try:
        if path is not None and not path.is_dir():
            recipe = recipe_from_file(path, registry=load_registry(shelf))
            return _backbones_amiss(recipe.pair.backbones(), str(path), notes)
        registry = load_registry(path or shelf)
    except RecipeError as error:
        return error.faults
    for name in unlike_recipe_ids(registry):
        try:
            find_recipe(registry, name)
        except RecipeError as error:
            faults += error.faults
    faults += _backbones_amiss(registry.backbones.values(), str(path or shelf), notes)
    return list(dict.fromkeys(faults))


def _backbones_amiss(backbones: Iterable["Backbone"], where: str, notes: list[str]) -> list[str]:
    """What timm says against backbones that did not ship; where they differ from timm is noted."""
    from idat_zoo.registry import differences, load_registry

    shipped = load_registry().backbones.values()
    own = [backbone for backbone in backbones if backbone not in shipped]
    if not own:
        return []  # timm takes seconds to load
    from idat_zoo.backbones.frozen import faults_of

    notes += [f"{where}: {told}" for backbone in own for told in differences(backbone)]
    return [f"{where}: {fault}" for backbone in own for fault in faults_of(backbone)]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _device_facts() -> dict[str, str]:
    try:
        import torch
    except ImportError as error:
        return {"devices": f"torch cannot be imported: {error}"}
    gpus = [
        "{} ({}.{})".format(
            torch.cuda.get_device_name(index), *torch.cuda.get_device_capability(index)
        )
        for index in range(torch.cuda.device_count())
    ]
    return {
        "cpu threads": str(torch.get_num_threads()),
        "cuda": ", ".join(gpus) or "no device",
        "mps": "yes" if torch.backends.mps.is_available() else "no",
    }
