"""Command-line options that several commands share, with shell completion of names."""

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from idat_zoo.errors import UsageError, ZooError

SHELF_VARIABLE = "IDAT_SHELF"
DATA_VARIABLE = "IDAT_DATA_DIR"


def _completer(kind: str) -> Callable[[typer.Context, str], list[str]]:
    """A function that completes names of a kind, also the last one of a comma list."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        from idat_zoo.registry import ALL, FOLDER, GROUPS, SUITES, load_registry
        from idat_zoo.registry.controls import CONTROLS
        from idat_zoo.trackers import TRACKERS

        shelf = context.params.get("shelf") or os.environ.get(SHELF_VARIABLE)
        try:
            registry = load_registry(Path(shelf) if shelf else None)
        except ZooError:
            return []
        names = {
            "task": [*registry.tasks, ALL, *GROUPS, *SUITES, FOLDER, *registry.aliases],
            "adapter": [*registry.adapters, ALL],
            "pair": list(registry.pairs),
            "teacher": ["none", *registry.backbones],
            "control": list(CONTROLS),
            "tracker": list(TRACKERS),
        }[kind]
        done, comma, last = incomplete.rpartition(",")
        return [done + comma + name for name in names if name.startswith(last)]

    return complete


TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="TASK,…",
        help="Tasks, suites (mini, real, vtab1k or all, fgvc, fewshot) and VTAB-1K's groups "
        "(natural, specialized, structured), with commas between; or folder: the images of "
        "--data-dir.",
        autocompletion=_completer("task"),
    ),
]
TasksArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TASK]…",
        help="As --task of `idat train` takes them.",
        autocompletion=_completer("task"),
        show_default=False,
    ),
]
AdapterOption = Annotated[
    str | None,
    typer.Option(
        "--adapter",
        metavar="NAME,…",
        help="Adapter families with commas between, or all.",
        autocompletion=_completer("adapter"),
    ),
]
PairOption = Annotated[
    str | None,
    typer.Option(
        "--pair",
        metavar="NAME",
        help="A teacher–student pair instead of the task's own; PAIR_swapped and PAIR_twins are "
        "its controls.",
        autocompletion=_completer("pair"),
    ),
]
TeacherOption = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        metavar="none|BACKBONE",
        help="Another teacher, or none: train the student's adapter alone.",
        autocompletion=_completer("teacher"),
    ),
]
ControlOption = Annotated[
    str | None,
    typer.Option(
        "--control",
        metavar="NAME",
        help="Train a control of the recipe instead: `idat list controls`.",
        autocompletion=_completer("control"),
    ),
]
TeacherFromOption = Annotated[
    list[str] | None,
    typer.Option(
        "--teacher-from",
        metavar="REF",
        help="A trained teacher, whose logits are computed once: a run's folder, hub:… or "
        "builtin:NAME. Given several times, the mean of the teachers' softmaxes counts.",
    ),
]
RecipeOption = Annotated[
    Path | None,
    typer.Option("--recipe", metavar="FILE", help="A resolved recipe, as `idat cp` writes it."),
]
ShelfOption = Annotated[
    Path | None,
    typer.Option(
        "--shelf",
        metavar="DIR",
        envvar=SHELF_VARIABLE,
        help="Your own folder of tasks, pairs, backbones and recipes.",
    ),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        envvar=DATA_VARIABLE,
        help="The folder that holds the tasks' folders; of --task folder, your images themselves "
        "or a CSV of them.",
    ),
]
SkipCorruptOption = Annotated[
    bool, typer.Option("--skip-corrupt", help="Of --task folder: leave out unreadable images.")
]
StreamTestOption = Annotated[
    bool, typer.Option("--stream-test", help="Do not keep decoded test images on disk.")
]
MegapixelsOption = Annotated[
    float,
    typer.Option(
        "--max-megapixels",
        metavar="X",
        envvar="IDAT_MAX_MEGAPIXELS",
        min=0.001,
        max=178,
        help="Larger images are refused.",
    ),
]


def _load_plugins(context: typer.Context, files: list[Path] | None) -> list[Path] | None:
    """Load plugins before other options are read, but never to complete a word.

    What a plugin prints goes to stderr, because stdout holds the command's result.
    """
    if files and not context.resilient_parsing:
        from idat_zoo.plugins import load_plugin

        with redirect_stdout(sys.stderr):
            for file in files:
                load_plugin(file)
    return files


PluginOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        is_eager=True,
        callback=_load_plugins,
        show_default=False,
        help="Python of your own that brings adapters, backbones, terms or suites. It is run.",
    ),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Where results are written.")
]
RUNS = Path("runs")
"""The folder of runs unless --out names another."""
PLACES = "A run's folder, hub:ORG/NAME[@REV][/SUBFOLDER], or builtin:NAME."
CheckpointsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CHECKPOINT…", help=f"{PLACES} Or a folder of runs.", show_default=False
    ),
]
CheckpointArgument = Annotated[
    str | None, typer.Argument(metavar="CHECKPOINT", help=PLACES, show_default=False)
]
CheckpointOption = Annotated[
    list[str] | None,
    typer.Option("--checkpoint", metavar="REF", help="CHECKPOINT, said as an option."),
]


def named_checkpoints(words: Iterable[str], options: Iterable[str] | None) -> list[str]:
    """The checkpoints that words and --checkpoint name. Raises: UsageError for none."""
    named = [*words, *(options or ())]
    if not named:
        raise UsageError(
            "CHECKPOINT says which adapter: a run's folder, hub:ORG/NAME or builtin:NAME.",
            hint="One ships: builtin:digits-lora",
        )
    return named


def one_checkpoint(word: str | None, options: Iterable[str] | None) -> str:
    """The only checkpoint that a word or --checkpoint names. Raises: UsageError otherwise."""
    named = named_checkpoints([word] if word else [], options)
    if len(named) > 1:
        raise UsageError(f"one CHECKPOINT at a time; {len(named)} are named: {', '.join(named)}")
    return named[0]


PinnedOption = Annotated[
    bool,
    typer.Option("--require-pinned", help="Refuse places on the Hub that name no commit."),
]


def check_references(references: list[str], *, require_pinned: bool) -> None:
    """Check references before anything heavy is loaded.

    Raises: UsageError for a malformed reference to the Hub, and with `require_pinned` for one
    that names no commit.
    """
    from idat_zoo.hub.references import parse_reference

    for text in references:
        place = parse_reference(text)
        if require_pinned and place is not None and not place.pinned:
            raise UsageError(
                f"'{text}' names no commit, and --require-pinned asks for one.",
                hint="hub:ORG/NAME@COMMIT, with all 40 digits of its hash",
            )


DeviceOption = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed", metavar="N", min=0, help="The seed of every random draw; 0 unless given."
    ),
]
SeedsOption = Annotated[
    str | None,
    typer.Option("--seeds", metavar="N,…", help="Several seeds instead, each a run of its own."),
]
SPEED = "How it is computed"
StackOption = Annotated[
    int | None,
    typer.Option(
        "--stack",
        metavar="N",
        min=1,
        help="At most N runs in one pass over the backbones they share. Unless given: on CUDA as "
        "many as fit into memory, elsewhere 1.",
        rich_help_panel=SPEED,
    ),
]
JobsOption = Annotated[
    int,
    typer.Option(
        "--jobs",
        metavar="N",
        min=1,
        help="N processes train at the same time and share out the threads; on CUDA, one a device.",
        rich_help_panel=SPEED,
    ),
]
PrefixCacheOption = Annotated[
    bool,
    typer.Option(
        "--prefix-cache/--no-prefix-cache",
        help="Compute what comes before the first adapter once for each image.",
        rich_help_panel=SPEED,
    ),
]
CompileOption = Annotated[
    bool,
    typer.Option(
        "--compile/--no-compile",
        help="torch.compile, with CUDA graphs on CUDA: slow to begin, then faster.",
        rich_help_panel=SPEED,
    ),
]
FusedOption = Annotated[
    bool | None,
    typer.Option(
        "--fused/--no-fused",
        help="AdamW in one kernel. Unless given: on CUDA.",
        show_default=False,
        rich_help_panel=SPEED,
    ),
]
KeepMemoryOption = Annotated[
    bool,
    typer.Option(
        "--keep-memory/--no-keep-memory",
        help="On CPU, keep freed memory for the next step (glibc).",
        rich_help_panel=SPEED,
    ),
]
DeterministicOption = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="On CUDA, kernels that give the same bits every time.",
        rich_help_panel=SPEED,
    ),
]
TrackerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tracker",
        metavar="NAME",
        help="Send each run's epochs to tensorboard, wandb, trackio or mlflow; may be repeated.",
        autocompletion=_completer("tracker"),
    ),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on with an unfinished run, to the same bits.")
]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait for another process that trains the same run.")
]
KeepDivergedOption = Annotated[
    bool,
    typer.Option("--keep-diverged", help="Write the result of a training that diverged, labelled."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Download what is needed without asking.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]…",
        help="Recipe fields, e.g. lr=1e-3, adapter.rank=4, teacher_adapter=linear.",
        show_default=False,
    ),
]
