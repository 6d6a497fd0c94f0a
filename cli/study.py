"""`idat study`: many runs that answer one question, planned once and trained until all are done."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idat_zoo.cli import screen
from idat_zoo.cli.help import PlainCommand, PlainGroup
from idat_zoo.cli.hf_jobs import check_options, open_study, submit_passes
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
    TrackerOption,
    YesOption,
)
from idat_zoo.cli.passes import (
    ExecutorOption,
    ExecutorWordsOption,
    PassOption,
    check_pass,
    print_commands,
)
from idat_zoo.cli.report import Format, FormatOption, print_sections
from idat_zoo.cli.study_texts import print_dry_run, print_outcome, print_status
from idat_zoo.errors import HubError, UnknownNameError, UsageError, ZooError

if TYPE_CHECKING:
    from idat_zoo.runs.plan import Planned


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
    """Train the runs of a study, by `idat study FILE|NAME`.

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
    tracker: TrackerOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
    stack: StackOption = None,
    jobs: JobsOption = 1,
    prefix_cache: PrefixCacheOption = True,
    compile: CompileOption = False,
    fused: FusedOption = None,
    keep_memory: KeepMemoryOption = True,
    deterministic: DeterministicOption = False,
    executor: ExecutorOption = "local",
    executor_option: ExecutorWordsOption = None,
    number: PassOption = None,
) -> None:
    """Train all runs of a study that are not finished.

    A run that fails does not end the others; after its third failure it is left out.
    """
    from idat_zoo.executors.names import HF_JOBS, PRINT, check_name, find_options, open_executor
    from idat_zoo.registry.studies import get_study
    from idat_zoo.switches import Switches

    if measure and not dry_run:
        raise UsageError("--measure belongs to --dry-run, which tells the hours.")
    check_name(executor, jobs=jobs)
    check_pass(number, executor=executor, dry_run=dry_run, replan=replan)
    if executor == HF_JOBS:
        check_options(context)
    word = _only_one(what)
    asked = get_study(word, shelf=shelf) if number is None else None
    folder = out or (RUNS / asked.name if asked else find_folder(word, out, shelf))
    with screen.waiting("loading torch"):
        options = find_options(executor, executor_option or ())
        from idat_zoo.engine.precision import find_device
        from idat_zoo.runs.device_setup import set_up
        from idat_zoo.runs.inputs import Inputs
        from idat_zoo.study.plan import load_plan
        from idat_zoo.study.planning import agreed_plan, make_plan
        from idat_zoo.study.train import one_pass, open_passes, plan_of_runs, train_pass, train_plan
        from idat_zoo.trackers import find_trackers

        find_trackers(tracker or ())
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
    on_hub, part = None, None
    if executor == HF_JOBS and asked is not None and not dry_run:
        on_hub = open_study(asked.name, folder, options)
    if asked is None:
        assert number is not None
        stored = load_plan(folder)
        settled, part = one_pass(stored, number), (number, len(stored.passes))
    else:
        fresh = make_plan(asked, setup, data_dir=data_dir)
        settled = agreed_plan(fresh, folder, replan=replan)
    for sentence in settled.left_out:
        screen.note(f"left out: {sentence}")
    planned = plan_of_runs(settled, folder, setup, inputs)
    if dry_run:
        print_dry_run(
            settled, planned, folder, setup, data_dir, measure=measure, retry=retry, json=json
        )
        return
    if on_hub is not None:
        submit_passes(
            context, on_hub, settled, setup, inputs, retry=retry, replan=replan, json=json
        )
        return
    engine = open_executor(executor, options, folder=folder)
    agreed = _offer(planned, data_dir, shelf, yes=yes)
    with screen.waiting("loading torch"):
        from idat_zoo.cli.progress import LiveProgress
        from idat_zoo.cli.train import said_words

    class StudyProgress(LiveProgress):
        """The live progress of a study, which says failures in notes of its own."""

        def failed(self, label: str, error: ZooError) -> None:
            """Print nothing: a note has the failure in one line."""

    inputs, words = replace(inputs, download=agreed), said_words(context)
    if executor == PRINT:
        with StudyProgress() as progress:
            numbers = open_passes(settled, folder, setup, inputs, progress, retry=retry)
        print_commands(context, settled.name, numbers, folder, options, json=json)
        return
    with StudyProgress() as progress:
        inputs = replace(inputs, listener=progress)
        train = (
            partial(train_plan, train_turns=None if engine is None else engine.train)
            if number is None
            else train_pass
        )
        outcome = train(
            settled,
            folder,
            setup,
            inputs,
            progress,
            retry=retry,
            words=words,
            trackers=tracker or (),
        )
    print_outcome(outcome, part, json=json)
    if not outcome.is_complete:
        raise typer.Exit(screen.SOME_FAILED)


@app.command(cls=PlainCommand)
def status(
    what: StudyArgument,
    out: StudyOutOption = None,
    shelf: ShelfOption = None,
    json: JsonOption = False,
) -> None:
    """Show which runs of a study are finished, queued, running or failed."""
    from idat_zoo.executors import hf_jobs
    from idat_zoo.executors.slurm_arrays import described_jobs
    from idat_zoo.executors.slurm_queue import NoAnswerError
    from idat_zoo.study.plan import load_plan
    from idat_zoo.study.status import as_document, read_status

    folder = find_folder(_only_one(what), out, shelf)
    plan = load_plan(folder)
    queued = {}
    try:
        queued = described_jobs(folder)
    except NoAnswerError as error:
        screen.note(f"Slurm does not list its jobs: {error}")
    try:
        queued |= hf_jobs.described_jobs(folder, plan)
    except HubError as error:
        screen.note(f"the Hub does not list its jobs: {error.message}")
    runs = read_status(plan, folder, queued=queued)
    if json:
        screen.print_json(as_document(plan, folder, runs))
        return
    print_status(plan, folder, runs)


@app.command(cls=PlainCommand)
def report(
    what: StudyArgument,
    out: StudyOutOption = None,
    format: FormatOption = None,
    shelf: ShelfOption = None,
    json: JsonOption = False,
) -> None:
    """Compare the arms of a study, with intervals, over what is finished.

    `idat report runs/inverse --html inverse.html` draws a page of its runs.
    """
    if json and format is not None:
        raise UsageError("--json and --format exclude each other", hint="Leave one of them out.")
    from idat_zoo.report.markdown import as_markdown
    from idat_zoo.study.layout import lay_out_study
    from idat_zoo.study.plan import load_plan
    from idat_zoo.study.report import build_study_report

    folder = find_folder(_only_one(what), out, shelf)
    built = build_study_report(load_plan(folder), folder)
    if json:
        screen.print_json({"report": built.model_dump(mode="json", exclude_none=True)})
    elif format == Format.MARKDOWN:
        typer.echo(as_markdown(lay_out_study(built)), nl=False)
    else:
        print_sections(lay_out_study(built))


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
        try:
            folder = RUNS / find_study_file(what, shelf).stem
        except UsageError as error:
            other = f"'{folder}' holds no study; --out names another folder."
            error.hint = f"{error.hint} {other}".lstrip()
            raise
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
