"""`idat eval`: the metrics of checkpoints on the test images of their tasks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from idat_zoo.cli import screen
from idat_zoo.cli.imports import uncollected
from idat_zoo.cli.options import (
    CheckpointOption,
    CheckpointsArgument,
    DataDirOption,
    DeviceOption,
    JsonOption,
    MegapixelsOption,
    OutOption,
    PinnedOption,
    PluginOption,
    ShelfOption,
    SkipCorruptOption,
    StreamTestOption,
    TaskOption,
    YesOption,
    check_references,
    named_checkpoints,
)
from idat_zoo.cli.own_weights import GivenWeightsOption
from idat_zoo.errors import UsageError, ZooError

if TYPE_CHECKING:
    from idat_zoo.checkpoint.opened import Opened
    from idat_zoo.registry import Registry
    from idat_zoo.results import Result

BELOW_THRESHOLD = 4


def evaluate_command(
    checkpoints: CheckpointsArgument = None,
    checkpoint: CheckpointOption = None,
    require_pinned: PinnedOption = False,
    task: TaskOption = None,
    fail_under: Annotated[
        float | None,
        typer.Option("--fail-under", metavar="X", min=0, max=1, help="Exit 4 if top-1 < X (0–1)."),
    ] = None,
    device: DeviceOption = "auto",
    data_dir: DataDirOption = None,
    skip_corrupt: SkipCorruptOption = False,
    stream_test: StreamTestOption = False,
    max_megapixels: MegapixelsOption = 64,
    out: OutOption = None,
    shelf: ShelfOption = None,
    weights: GivenWeightsOption = None,
    plugin: PluginOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Evaluate trained adapters: top-1, calibration, tables by class.

    For example: idat eval builtin:digits-lora
    """
    named = named_checkpoints(checkpoints or [], checkpoint)
    check_references(named, require_pinned=require_pinned)
    with uncollected():
        from idat_zoo.backbones.pair import Backbones
        from idat_zoo.cli import present
        from idat_zoo.cli.checkpoint_notes import tell_cached
        from idat_zoo.cli.downloads import offer, require_weights
        from idat_zoo.cli.progress import LiveProgress
        from idat_zoo.data.reading import Reading
        from idat_zoo.engine.precision import find_device, resolve_precision
        from idat_zoo.engine.timing import slowness
        from idat_zoo.evaluation import evaluate
        from idat_zoo.registry import load_registry

    reading = Reading(
        skip_corrupt=skip_corrupt, stream_test=stream_test, max_megapixels=max_megapixels
    )
    registry = load_registry(shelf)
    found = _asked_for(named, task, registry)
    tell_cached(opened.on_hub for opened in found.values())
    configs = [opened.config for opened in found.values()]
    needed = [config.backbone for config in configs]
    agreed = offer(
        [config.recipe.task for config in configs],
        needed,
        registry=registry,
        data_dir=data_dir,
        yes=yes,
        alone=len(configs) == 1,
    )
    require_weights(needed, agreed=agreed)
    where = find_device(device)
    for precision in sorted({resolve_precision(one.recipe, where).precision for one in configs}):
        if slow := slowness(precision, where):
            screen.note(f"{slow}; what was trained so is evaluated so, faster on another --device")
    backbones = Backbones(where)
    results: list[Result] = []
    failures: list[ZooError] = []
    for name, opened in found.items():
        place = out / name if out is not None and len(found) > 1 else out
        try:
            with LiveProgress() as progress:
                result = evaluate(
                    opened,
                    device=device,
                    data_dir=data_dir,
                    reading=reading,
                    out=place,
                    listener=progress,
                    backbones=backbones,
                )
            results.append(result)
        except ZooError as error:
            failures.append(error)
            screen.print_error(error)
    if json:
        screen.print_json({"results": [result.as_document() for result in results]})
    else:
        for result in results:
            typer.echo(screen.plain(str(result)))
            present.print_metrics(result.student)
    if failures:
        raise typer.Exit(screen.SOME_FAILED if results else failures[-1].exit_code)
    if fail_under is not None and any(result.top1 < fail_under for result in results):
        screen.note(f"below the threshold: top-1 < {fail_under}")
        raise typer.Exit(BELOW_THRESHOLD)


def _asked_for(
    references: Sequence[str], task: str | None, registry: "Registry"
) -> dict[str, "Opened"]:
    """The checkpoints at and below the references; with `task`, only those of these tasks.

    The name of a checkpoint is its path below its reference, with the number of the reference in
    front if there are several.

    Raises: UsageError for a task that none of the checkpoints was trained on.
    """
    from idat_zoo.checkpoint.opened import open_checkpoints
    from idat_zoo.registry import resolve_held

    several = len(references) > 1
    found = {
        f"{number}/{name}" if several else name: opened
        for number, reference in enumerate(references, start=1)
        for name, opened in open_checkpoints(reference).items()
    }
    if task is None:
        return found
    held = {name: opened.config.recipe.task.id for name, opened in found.items()}
    asked = resolve_held(task, held.values(), registry)
    lacking = [one for one in asked if one not in held.values()]
    if lacking:
        raise UsageError(
            f"checkpoint '{', '.join(references)}' has no task {', '.join(lacking)}.",
            hint=f"It has: {', '.join(sorted(set(held.values())))}",
        )
    return {name: found[name] for name, one in held.items() if one in asked}
