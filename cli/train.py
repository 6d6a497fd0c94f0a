"""`idat train`: the training of recipes with seeds, one run after the other or in shared passes."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from idat_zoo.cli import screen, torchrun
from idat_zoo.cli.options import (
    RUNS,
    AdapterOption,
    CompileOption,
    ControlOption,
    DataDirOption,
    DeterministicOption,
    DeviceOption,
    DryRunOption,
    FusedOption,
    JobsOption,
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
    TeacherFromOption,
    TeacherOption,
    TrackerOption,
    WaitOption,
    YesOption,
)
from idat_zoo.cli.own_weights import WeightsOption
from idat_zoo.cli.train_recipes import (
    check_alone,
    controlled,
    recipes_of,
    seeds_of,
    without_misfits,
)
from idat_zoo.errors import ZooError

if TYPE_CHECKING:
    from idat_zoo.checkpoint.opened import Opened
    from idat_zoo.recipe import Recipe
    from idat_zoo.results import Result
    from idat_zoo.runs.plan import Planned


def train(
    context: typer.Context,
    overrides: Overrides = None,
    task: TaskOption = None,
    adapter: AdapterOption = None,
    pair: PairOption = None,
    teacher: TeacherOption = None,
    control: ControlOption = None,
    teacher_from: TeacherFromOption = None,
    weights: WeightsOption = None,
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
    tracker: TrackerOption = None,
    keep_diverged: KeepDivergedOption = False,
    dry_run: DryRunOption = False,
    skip_corrupt: SkipCorruptOption = False,
    stream_test: StreamTestOption = False,
    max_megapixels: MegapixelsOption = 64,
    yes: YesOption = False,
    json: JsonOption = False,
    stack: StackOption = None,
    jobs: JobsOption = 1,
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
    from idat_zoo.cli.downloads import offer
    from idat_zoo.data.reading import Reading
    from idat_zoo.registry import ALL, differences, load_registry
    from idat_zoo.switches import Switches

    reading = Reading(
        skip_corrupt=skip_corrupt, stream_test=stream_test, max_megapixels=max_megapixels
    )
    switches = Switches(
        prefix_cache=prefix_cache,
        compile=compile,
        fused=fused,
        keep_memory=keep_memory,
        deterministic=deterministic,
    )
    processes = torchrun.join(context)
    if processes is not None and processes.rank:
        torchrun.follow(
            processes,
            device,
            switches,
            data_dir=data_dir,
            reading=reading,
            teacher_from=teacher_from or (),
        )
        return
    recipes = recipes_of(
        task, adapter, pair, teacher, recipe, overrides or [], shelf, data_dir, reading
    )
    if weights:
        from idat_zoo.own_weights import parse_roles
        from idat_zoo.registry.own_files import with_own_weights

        own = parse_roles(weights)
        recipes = [with_own_weights(one, own) for one in recipes]
    if control is not None:
        recipes = controlled(recipes, control, teacher, shelf)
    teachers: tuple[Opened, ...] = ()
    if teacher_from:
        check_alone(teacher, control, overrides or [])
        with screen.waiting("loading torch"):
            from idat_zoo.runs.offline import open_teachers, with_offline_teachers

            teachers = open_teachers(teacher_from)
            recipes = [with_offline_teachers(one, *teachers) for one in recipes]
    backbones = [spec for one in recipes for spec in one.backbones()]
    for note in dict.fromkeys(note for spec in backbones for note in differences(spec)):
        screen.note(note)
    if adapter == ALL:
        recipes = without_misfits(recipes)
    asked = [(one, number) for one in recipes for number in seeds_of(seed, seeds)]
    with screen.waiting("loading torch"):
        from idat_zoo.backbones.pair import check_carried
        from idat_zoo.cli.progress import LiveProgress
        from idat_zoo.engine.precision import find_device
        from idat_zoo.engine.processes import ALONE
        from idat_zoo.engine.torchrun import own_device
        from idat_zoo.runs.device_setup import set_up
        from idat_zoo.runs.inputs import Inputs
        from idat_zoo.runs.many import train_planned
        from idat_zoo.runs.plan import plan
        from idat_zoo.trackers import find_trackers

        find_trackers(tracker or ())
    where = find_device(device) if processes is None else own_device(device)
    inputs = Inputs(data_dir=data_dir, reading=reading, teachers=teachers)
    planned = plan(asked, out=out or RUNS, device=where, inputs=inputs)
    for run in planned:
        if dry_run or not run.finished:
            check_carried(run.recipe)
    if dry_run:
        _print_plans(planned, data_dir=data_dir, json=json)
        return
    setup = set_up(where, switches, stack=stack, jobs=jobs, processes=processes or ALONE)
    unfinished = [run.recipe for run in planned if not run.finished]
    agreed = offer(
        [one.task for one in unfinished],
        [spec for one in unfinished for spec in one.backbones()],
        registry=load_registry(shelf),
        data_dir=data_dir,
        yes=yes,
        alone=len(asked) == 1,
    )
    with LiveProgress() as progress:
        outcomes = train_planned(
            planned,
            setup,
            replace(inputs, download=agreed, listener=progress),
            progress,
            resume=resume,
            wait=wait,
            keep_diverged=keep_diverged,
            words=said_words(context),
            trackers=tracker or (),
        )
    failures = [outcome for outcome in outcomes if isinstance(outcome, ZooError)]
    if len(asked) == 1 and failures:
        raise failures[0]
    results = [
        (run, outcome)
        for run, outcome in zip(planned, outcomes, strict=True)
        if not isinstance(outcome, ZooError)
    ]
    _print_results(results, json=json)
    if failures:
        raise typer.Exit(screen.SOME_FAILED if results else failures[-1].exit_code)


def said_words(context: typer.Context) -> list[str]:
    """The words of the command line, with options set by environment variables added."""
    name, *rest = context.obj
    said = []
    for one in context.command.params:
        source = context.get_parameter_source(one.name or "")
        if source is not None and source.name == "ENVIRONMENT":
            said += [one.opts[0], str(context.params[one.name or ""])]
    begin = 1 if name != context.info_name and rest[:1] == [context.info_name] else 0
    return [name, *rest[:begin], *said, *rest[begin:]]  # after `study run`, say


def _print_results(results: Sequence[tuple["Planned", "Result"]], *, json: bool) -> None:
    if json:
        documents = [{"folder": str(run.folder), **result.as_document()} for run, result in results]
        screen.print_json({"results": documents})
        return
    from idat_zoo.cli.plots import curves

    for run, result in results:
        typer.echo(screen.plain(f"{result}\n  {run.folder}"))
        if sys.stdout.isatty():
            for line in curves(run.folder):
                typer.echo(f"  {line}")


def _print_plans(planned: Sequence["Planned"], *, data_dir: Path | None, json: bool) -> None:
    """Print the recipe, the folder and the missing inputs of each run."""
    from idat_zoo.recipe_toml import dump_recipe

    plans = []
    for run in planned:
        decoded = _decoded_bytes(run.recipe, data_dir)
        plans.append(
            {
                "folder": str(run.folder),
                "missing": list(run.missing),
                "decoded_bytes": decoded,
                "recipe": run.recipe.model_dump(mode="json", exclude_none=True),
            }
        )
        if not json:
            missing = "; ".join(run.missing) or "nothing"
            typer.echo(f"# folder: {run.folder}\n# missing: {missing}")
            for side, splits in decoded.items():
                sizes = (f"{split} {screen.size(taken)}" for split, taken in splits.items())
                typer.echo(f"# decoded images at {side} x {side}: {', '.join(sizes) or 'unknown'}")
            typer.echo(dump_recipe(run.recipe))
    if json:
        screen.print_json({"plans": plans})


def _decoded_bytes(recipe: "Recipe", data_dir: Path | None) -> dict[str, dict[str, int]]:
    """The size of the decoded images in bytes, by input size in pixels and split, if known."""
    from idat_zoo.data.suites import suite_of

    counts = suite_of(recipe.task).num_images(recipe.task, data_dir)
    return {
        str(side): {split: count * 3 * side**2 for split, count in counts.items() if count}
        for side in sorted({spec.img_size for spec in recipe.backbones()})
    }
