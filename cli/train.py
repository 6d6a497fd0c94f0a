"""`idat train`: recipes and seeds to run folders, one after the other or in one pass."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from idat_zoo.cli import screen
from idat_zoo.cli.options import (
    RUNS,
    AdapterOption,
    CompileOption,
    DataDirOption,
    DeterministicOption,
    DeviceOption,
    DryRunOption,
    FusedOption,
    JsonOption,
    KeepDivergedOption,
    KeepMemoryOption,
    MegapixelsOption,
    OutOption,
    Overrides,
    PairOption,
    PluginOption,
    PrefixCacheOption,
    RecipeOption,
    ResumeOption,
    SeedOption,
    SeedsOption,
    ShelfOption,
    SkipCorruptOption,
    StackOption,
    StreamTestOption,
    TaskOption,
    TeacherOption,
    WaitOption,
    YesOption,
)
from idat_zoo.errors import UsageError, ZooError

if TYPE_CHECKING:
    from idat_zoo.data.reading import Reading
    from idat_zoo.recipe import Recipe
    from idat_zoo.registry import Family
    from idat_zoo.results import Result

    Asked = Sequence[tuple[Recipe, int]]


def train(
    context: typer.Context,
    overrides: Overrides = None,
    task: TaskOption = None,
    adapter: AdapterOption = None,
    pair: PairOption = None,
    teacher: TeacherOption = None,
    recipe: RecipeOption = None,
    seed: SeedOption = None,
    seeds: SeedsOption = None,
    device: DeviceOption = "auto",
    data_dir: DataDirOption = None,
    out: OutOption = None,
    shelf: ShelfOption = None,
    plugin: PluginOption = None,
    resume: ResumeOption = False,
    wait: WaitOption = False,
    keep_diverged: KeepDivergedOption = False,
    dry_run: DryRunOption = False,
    skip_corrupt: SkipCorruptOption = False,
    stream_test: StreamTestOption = False,
    max_megapixels: MegapixelsOption = 64,
    yes: YesOption = False,
    json: JsonOption = False,
    stack: StackOption = None,
    prefix_cache: PrefixCacheOption = True,
    compile: CompileOption = False,
    fused: FusedOption = None,
    keep_memory: KeepMemoryOption = True,
    deterministic: DeterministicOption = False,
) -> None:
    """Train an adapter with its teacher and evaluate it once on test.

    Everything is kept in a folder of its own below --out, else below runs/.

    For example: idat train --task digits --adapter lora,linear --seeds 0,1 epochs=20 lr=1e-3,1e-2
    """
    from idat_zoo.cli.offers import offer
    from idat_zoo.data.reading import Reading
    from idat_zoo.registry import ALL, differences, load_registry
    from idat_zoo.switches import Switches

    reading = Reading(
        skip_corrupt=skip_corrupt, stream_test=stream_test, max_megapixels=max_megapixels
    )
    recipes = _recipes(
        task, adapter, pair, teacher, recipe, overrides or [], shelf, data_dir, reading
    )
    backbones = [spec for one in recipes for spec in one.pair.backbones()]
    for told in dict.fromkeys(told for spec in backbones for told in differences(spec)):
        screen.note(told)
    if adapter == ALL:
        recipes = _that_stand(recipes)
    asked = [(one, number) for one in recipes for number in _seeds(seed, seeds)]
    place = out or RUNS
    if dry_run:
        _print_plans(asked, device=device, data_dir=data_dir, out=place, json=json)
        return
    with screen.waiting("loading torch"):
        from idat_zoo.backbones.pair import check_carried
        from idat_zoo.cli.progress import LiveProgress
        from idat_zoo.runs import run_many
    unfinished = _unfinished(asked, device=device, out=place)
    for one in unfinished:
        check_carried(one)
    agreed = offer(
        [one.task for one in unfinished],
        [spec for one in unfinished for spec in one.pair.backbones()],
        registry=load_registry(shelf),
        data_dir=data_dir,
        yes=yes,
        alone=len(asked) == 1,
    )
    with LiveProgress() as progress:
        outcomes = run_many(
            asked,
            device=device,
            data_dir=data_dir,
            reading=reading,
            out=place,
            resume=resume,
            wait=wait,
            keep_diverged=keep_diverged,
            download=agreed,
            switches=Switches(
                prefix_cache=prefix_cache,
                compile=compile,
                fused=fused,
                keep_memory=keep_memory,
                deterministic=deterministic,
            ),
            stack=stack,
            progress=progress,
            words=_words(context),
        )
    failures = [outcome for outcome in outcomes if isinstance(outcome, ZooError)]
    if len(asked) == 1 and failures:
        raise failures[0]
    results = [outcome for outcome in outcomes if not isinstance(outcome, ZooError)]
    _print_results(results, out=place, json=json)
    if failures:
        raise typer.Exit(screen.SOME_FAILED if results else failures[-1].exit_code)


def _words(context: typer.Context) -> list[str]:
    """The words of the command line, and as options what the environment says."""
    name, *rest = context.obj
    said = []
    for one in context.command.params:
        source = context.get_parameter_source(one.name or "")
        if source is not None and source.name == "ENVIRONMENT":
            said += [one.opts[0], str(context.params[one.name or ""])]
    return [name, *said, *rest]


def _seeds(seed: int | None, several: str | None) -> list[int]:
    if several is None:
        return [seed or 0]
    if seed is not None:
        raise UsageError("--seed and --seeds say the same; give one of them.")
    words = [word.strip() for word in several.split(",")]
    if not all(word.isascii() and word.isdecimal() for word in words):
        raise UsageError(f"--seeds {several}: expected whole numbers with commas, e.g. 0,1,2")
    return [int(word) for word in words]


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
    """The recipes that the options ask for: of each task, adapter and combination of values one."""
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


def _check_options(families: Sequence["Family"], words: Sequence[str]) -> None:
    """Raises: UsageError for an option that some of several adapters have, and others have not."""
    for word in words:
        prefix, _, option = word.partition("=")[0].partition(".")
        without = [family.word for family in families if option not in family.options]
        if prefix == "adapter" and 0 < len(without) < len(families):
            raise UsageError(
                f"'{word}' does not fit all adapters that are asked for: {', '.join(without)} "
                f"{'has' if len(without) == 1 else 'have'} no option '{option}'.",
                hint="Train those with a command of their own.",
            )


def _unfinished(asked: "Asked", *, device: str, out: Path) -> list["Recipe"]:
    """The recipes of runs that have no result yet, and so need images and weights."""
    from idat_zoo.engine.precision import find_device, resolve_precision
    from idat_zoo.results import RESULT_FILE
    from idat_zoo.run_folder import run_folder

    where = find_device(device)
    return [
        recipe
        for recipe, seed in asked
        if not (run_folder(out, resolve_precision(recipe, where), seed) / RESULT_FILE).is_file()
    ]


def _print_results(results: Sequence["Result"], *, out: Path, json: bool) -> None:
    from idat_zoo.run_folder import run_folder

    folders = [run_folder(out, result.recipe, result.seed) for result in results]
    if json:
        documents = [
            {"folder": str(folder), **result.as_document()}
            for folder, result in zip(folders, results, strict=True)
        ]
        screen.print_json({"results": documents})
        return
    for folder, result in zip(folders, results, strict=True):
        typer.echo(screen.plain(f"{result}\n  {folder}"))


def _that_stand(recipes: Sequence["Recipe"]) -> list["Recipe"]:
    """Those whose adapter its backbones can carry; what is left out of `all` is told."""
    with screen.waiting("loading torch"):
        from idat_zoo.backbones.pair import check_carried

    standing: list[Recipe] = []
    told: dict[str, None] = {}
    for recipe in recipes:
        try:
            check_carried(recipe)
        except UsageError as error:
            told[error.message] = None
        else:
            standing.append(recipe)
    for message in told:
        screen.note(f"left out: {message}")
    return standing


def _print_plans(
    asked: "Asked",
    *,
    device: str,
    data_dir: Path | None,
    out: Path,
    json: bool,
) -> None:
    """What each run is, where it would lie, and what is missing for it."""
    from idat_zoo.backbones.pair import check_carried
    from idat_zoo.engine.precision import find_device, resolve_precision
    from idat_zoo.recipe_toml import dump_recipe
    from idat_zoo.run_folder import run_folder
    from idat_zoo.runs import missing_inputs

    for one, _ in asked:
        check_carried(one)
    plans = []
    for one, seed in asked:
        recipe = resolve_precision(one, find_device(device))
        decoded = _decoded_bytes(recipe, data_dir)
        plans.append(
            {
                "folder": str(run_folder(out, recipe, seed)),
                "missing": missing_inputs(recipe, data_dir, seed=seed),
                "decoded_bytes": decoded,
                "recipe": recipe.model_dump(mode="json", exclude_none=True),
            }
        )
        if not json:
            missing = "; ".join(plans[-1]["missing"]) or "nothing"
            typer.echo(f"# folder: {plans[-1]['folder']}\n# missing: {missing}")
            for side, splits in decoded.items():
                sizes = (f"{split} {screen.size(taken)}" for split, taken in splits.items())
                typer.echo(f"# decoded images at {side} x {side}: {', '.join(sizes) or 'unknown'}")
            typer.echo(dump_recipe(recipe))
    if json:
        screen.print_json({"plans": plans})


def _decoded_bytes(recipe: "Recipe", data_dir: Path | None) -> dict[str, dict[str, int]]:
    """By input size and split, what the images take once decoded, where their number is known."""
    from idat_zoo.data.suites import suite_of

    counts = suite_of(recipe.task).num_images(recipe.task, data_dir)
    return {
        str(side): {split: count * 3 * side**2 for split, count in counts.items() if count}
        for side in sorted({spec.img_size for spec in recipe.pair.backbones()})
    }
