"""`idat study`: many runs that answer one question, planned once and trained until all are done."""

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idat_zoo.cli import screen
from idat_zoo.cli.help import PlainCommand, PlainGroup
from idat_zoo.cli.options import (
    RUNS,
    CompileOption,
    DataDirOption,
    DeterministicOption,
    DeviceOption,
    DryRunOption,
    FusedOption,
    JobsOption,
    JsonOption,
    KeepMemoryOption,
    PluginOption,
    PrefixCacheOption,
    ShelfOption,
    StackOption,
    YesOption,
)
from idat_zoo.errors import UnknownNameError, UsageError, ZooError

if TYPE_CHECKING:
    from idat_zoo.runs.device_setup import DeviceSetup
    from idat_zoo.runs.plan import Planned
    from idat_zoo.study.plan import StudyPlan
    from idat_zoo.study.train import StudyOutcome

NAMED = 10
"""The largest number of failures that the status lists."""


class StudyGroup(PlainGroup):
    """The group of `idat study`, where a word that is no command names the study to train."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `run` before the words unless they begin with a command or ask for help."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer()


@app.callback()
def study() -> None:
    """Train the runs of a study: idat study FILE|NAME.

    A study is a TOML file of axes (tasks, adapters, distillation terms, controls, seeds), or one of
    those that `idat list studies` lists. Its plan is stored; the same command goes on where an
    earlier one ended.

    \b
      idat study inverse --dry-run    how many runs and hours
      idat study inverse --jobs 2     train what is not finished
      idat study status inverse       what is finished, running or failed
    """


StudyArgument = Annotated[
    list[str],
    typer.Argument(metavar="FILE|NAME", help="A study file, or a name of `idat list studies`."),
]
StudyOutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The study's folder; runs/NAME unless given."),
]


@app.command(cls=PlainCommand)
def run(
    context: typer.Context,
    what: StudyArgument,
    out: StudyOutOption = None,
    dry_run: DryRunOption = False,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="With --dry-run: time a step where no run tells the hours."),
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try again what has failed three times.")
    ] = False,
    replan: Annotated[
        bool, typer.Option("--replan", help="Accept that the study has other runs than before.")
    ] = False,
    device: DeviceOption = "auto",
    data_dir: DataDirOption = None,
    shelf: ShelfOption = None,
    plugin: PluginOption = None,
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
    """Train all runs of a study that are not finished.

    A run that fails does not end the others; after its third failure it is left out.
    """
    from idat_zoo.registry.studies import get_study
    from idat_zoo.switches import Switches

    if measure and not dry_run:
        raise UsageError("--measure belongs to --dry-run, which tells the hours.")
    asked = get_study(_only_one(what), shelf=shelf)
    folder = out or RUNS / asked.name
    with screen.waiting("loading torch"):
        from idat_zoo.engine.precision import find_device
        from idat_zoo.runs.device_setup import set_up
        from idat_zoo.runs.inputs import Inputs
        from idat_zoo.study.planning import agreed_plan, make_plan
        from idat_zoo.study.train import plan_of_runs, train_plan
    switches = Switches(
        prefix_cache=prefix_cache,
        compile=compile,
        fused=fused,
        keep_memory=keep_memory,
        deterministic=deterministic,
    )
    setup, inputs = (
        set_up(find_device(device), switches, stack=stack, jobs=jobs),
        Inputs(data_dir=data_dir),
    )
    fresh = make_plan(asked, setup, data_dir=data_dir)
    settled = agreed_plan(fresh, folder, replan=replan)
    for sentence in settled.left_out:
        screen.note(f"left out: {sentence}")
    planned = plan_of_runs(settled, folder, setup, inputs)
    if dry_run:
        _print_dry_run(settled, planned, folder, setup, data_dir, measure=measure, json=json)
        return
    agreed = _offer(planned, data_dir, shelf, yes=yes)
    with screen.waiting("loading torch"):
        from idat_zoo.cli.progress import LiveProgress
        from idat_zoo.cli.train import said_words

    class StudyProgress(LiveProgress):
        """The live progress of a study, which says failures in notes of its own."""

        def failed(self, label: str, error: ZooError) -> None:
            """Print nothing: a note has the failure in one line."""

    with StudyProgress() as progress:
        outcome = train_plan(
            settled,
            folder,
            setup,
            replace(inputs, download=agreed, listener=progress),
            progress,
            retry=retry,
            words=said_words(context),
        )
    _print_outcome(outcome, json=json)
    if not outcome.is_complete:
        raise typer.Exit(screen.SOME_FAILED)


@app.command(cls=PlainCommand)
def status(
    what: StudyArgument,
    out: StudyOutOption = None,
    shelf: ShelfOption = None,
    json: JsonOption = False,
) -> None:
    """Show which runs of a study are finished, running or failed."""
    from idat_zoo.study.plan import load_plan
    from idat_zoo.study.status import as_document, as_table, count_cells, read_status

    folder = find_folder(_only_one(what), out, shelf)
    plan = load_plan(folder)
    runs = read_status(plan, folder)
    if json:
        screen.print_json(as_document(plan, folder, runs))
        return
    finished = sum(one.state == "finished" for one in runs)
    typer.echo(screen.plain(f"{plan.title}\n{folder}: {finished} of {len(runs)} runs are finished"))
    typer.echo()
    screen.print_table(*as_table(plan, count_cells(plan, runs)))
    running = [f"running: {one.entry}: {one.holder}" for one in runs if one.state == "running"]
    failed = [
        f"{one.state} ({one.failure.count} failure{'s' * (one.failure.count > 1)}): {one.entry}: "
        f"{one.failure.message}"
        for one in runs
        if one.failure is not None and one.state in ("failed", "left out")
    ]
    more = [f"… and {len(failed) - NAMED} more, which --json lists"] if len(failed) > NAMED else []
    for lines in (running, [*failed[:NAMED], *more]):
        if lines:
            typer.echo()
        for line in lines:
            _print_wrapped(line)


def find_folder(what: str, out: Path | None, shelf: Path | None) -> Path:
    """The folder of a study that was begun, by its name or its file.

    Raises: UnknownNameError for a name that neither a study nor a folder below runs/ has;
    UsageError for a file that is not there.
    """
    from idat_zoo.registry.studies import find_study_file
    from idat_zoo.study.plan import has_plan

    if out is not None:
        return out
    folder = RUNS / Path(what).stem if what.endswith(".toml") else RUNS / what
    if not has_plan(folder):
        folder = RUNS / find_study_file(what, shelf).stem
    return folder


def _only_one(words: list[str]) -> str:
    """The only word. Raises: UsageError for more; the first may be a command misspelt."""
    if len(words) > 1:
        from idat_zoo.errors import near_names
        from idat_zoo.registry.studies import COMMANDS

        if near_names(words[0], COMMANDS):
            raise UnknownNameError("command of `idat study`", words[0], COMMANDS)
        raise UsageError(
            f"one study at a time; {len(words)} are named: {', '.join(words)}",
            hint="idat study [status|report] FILE|NAME",
        )
    return words[0]


def _offer(
    planned: "list[Planned]", data_dir: Path | None, shelf: Path | None, *, yes: bool
) -> bool:
    """Whether missing weights may be downloaded; missing images are fetched with consent."""
    from idat_zoo.cli.downloads import offer
    from idat_zoo.registry import load_registry

    unfinished = [one.recipe for one in planned if not one.finished]
    return offer(
        list({one.task.id: one.task for one in unfinished}.values()),
        [spec for one in unfinished for spec in one.pair.backbones()],
        registry=load_registry(shelf),
        data_dir=data_dir,
        yes=yes,
        alone=False,
    )


def _print_outcome(outcome: "StudyOutcome", *, json: bool) -> None:
    plan, total = outcome.plan, len(outcome.plan.runs)
    if json:
        from idat_zoo.study.failures import in_one_line

        screen.print_json(
            {
                "study": plan.name,
                "folder": str(outcome.folder),
                "runs": total,
                "finished": len(outcome.results),
                "failed": {run: in_one_line(own) for run, own in outcome.failed.items()},
                "left_out": dict(outcome.left_out),
                "missing": {run: list(own) for run, own in outcome.missing.items()},
            }
        )
        return
    counts = {
        "failed": len(outcome.failed),
        "left out after three failures": len(outcome.left_out),
        "not begun, as inputs are missing": len(outcome.missing),
    }
    others = "".join(f", {count} {words}" for words, count in counts.items() if count)
    typer.echo(
        screen.plain(
            f"study '{plan.name}': {len(outcome.results)} of {total} runs are finished{others}\n"
            f"  {outcome.folder}"
        )
    )


def _print_dry_run(
    plan: "StudyPlan",
    planned: "list[Planned]",
    folder: Path,
    setup: "DeviceSetup",
    data_dir: Path | None,
    *,
    measure: bool,
    json: bool,
) -> None:
    """Print the numbers of runs and passes, what is missing, and the hours as far as known."""
    from idat_zoo.study.estimate import estimate, kind_in_words, kind_of, measured_rates

    rates = measured_rates(planned, data_dir)
    if measure:
        from idat_zoo.study.measure import seconds_per_image

        for one in planned:
            if not one.finished and kind_of(one.recipe) not in rates:
                with screen.waiting(f"timing {kind_in_words(kind_of(one.recipe))}"):
                    rates[kind_of(one.recipe)] = seconds_per_image(
                        one.recipe, setup.device, setup.switches
                    )
    expected = estimate(planned, rates, data_dir)
    hours = expected.seconds / 3600 / setup.jobs
    unknown = {kind_in_words(kind): count for kind, count in expected.unknown.items()}
    missing = list(
        dict.fromkeys(what for one in planned if not one.finished for what in one.missing)
    )
    finished = sum(one.finished for one in planned)
    if json:
        screen.print_json(
            {
                "study": plan.name,
                "title": plan.title,
                "folder": str(folder),
                "runs": len(planned),
                "passes": len(plan.passes),
                "finished": finished,
                "missing": missing,
                "hours": hours if expected.runs else None,
                "hours_of_runs": expected.runs,
                "unknown_hours_of": unknown,
            }
        )
        return
    typer.echo(screen.plain(f"{plan.title}\n  folder    {folder}"))
    typer.echo(f"  runs      {len(planned)}, of which {finished} are finished")
    typer.echo(f"  passes    {len(plan.passes)}")
    processes = "1 process" if setup.jobs == 1 else f"{setup.jobs} processes"
    known = f"{_time(hours)} for {expected.runs} runs, by {processes}" if expected.runs else ""
    lacking = sum(expected.unknown.values())
    unsaid = f"unknown for {lacking} runs" if lacking else ""
    typer.echo(f"  expected  {'; '.join(filter(None, (known, unsaid))) or 'nothing is left'}")
    if unknown:
        some = list(unknown)[:3] + (["…"] if len(unknown) > 3 else [])
        _print_wrapped(
            f"  no finished run tells the time of {', '.join(some)}; --measure times a step"
        )
    for what in missing:
        _print_wrapped(f"  missing: {what}")


def _print_wrapped(line: str) -> None:
    """Print a line; on a terminal it is wrapped between words."""
    text = screen.plain(line)
    typer.echo(
        textwrap.fill(text, screen.width(), subsequent_indent="    ", break_on_hyphens=False)
    )


def _time(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
