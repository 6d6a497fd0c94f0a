"""The options of `idat study` for passes that other engines train, and the printed commands."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idat_zoo.cli import screen
from idat_zoo.errors import UsageError

if TYPE_CHECKING:
    from idat_zoo.values import Frozen

ELSEWHERE = "Where it is computed"
ExecutorOption = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="NAME",
        help="What trains the passes: local, slurm, ray, hf-jobs, or print, which prints a command "
        "for each (docs/executors.md).",
        rich_help_panel=ELSEWHERE,
    ),
]
ExecutorWordsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--executor-option",
        metavar="KEY=VALUE",
        help="An option of the executor, e.g. cpus=4; give it again for each.",
        show_default=False,
        rich_help_panel=ELSEWHERE,
    ),
]
PassOption = Annotated[
    int | None,
    typer.Option(
        "--pass",
        metavar="N",
        help="Train pass N alone, of the plan that the study's folder holds.",
        show_default=False,
        rich_help_panel=ELSEWHERE,
    ),
]
CARRIED = (
    *("device", "data_dir", "shelf", "plugin", "yes", "prefix_cache", "compile", "fused"),
    *("keep_memory", "deterministic", "tracker"),
)
"""The parameters of `idat study` that a command for one pass takes over."""


def check_pass(number: int | None, *, executor: str, dry_run: bool, replan: bool) -> None:
    """Check what is given beside --pass. Raises: UsageError."""
    given = {"--executor": executor != "local", "--dry-run": dry_run, "--replan": replan}
    for option in (name for name, is_given in given.items() if is_given):
        if number is not None:
            raise UsageError(f"--pass trains one pass of a stored plan; leave out {option}.")


def print_commands(
    context: typer.Context,
    name: str,
    numbers: Sequence[int],
    folder: Path,
    options: "Frozen",
    *,
    json: bool,
) -> None:
    """Print a command for each pass with runs to train, one a line."""
    from idat_zoo.executors.command import CommandOptions, pass_command

    assert isinstance(options, CommandOptions)
    words = carried_words(context, CARRIED)
    commands = [pass_command(name, number, folder, options, words) for number in numbers]
    if json:
        screen.print_json({"study": name, "folder": str(folder), "commands": commands})
        return
    if not commands:
        screen.note("nothing is left to train, so there is no command")
    for command in commands:
        typer.echo(command)


def carried_words(context: typer.Context, names: Collection[str]) -> list[str]:
    """The words of the options among `names` that are not at their defaults; paths are absolute."""
    words: list[str] = []
    for one in context.command.params:
        source = context.get_parameter_source(one.name or "")
        if one.name not in names or source is None or source.name.startswith("DEFAULT"):
            continue
        value: Any = context.params[one.name]
        if isinstance(value, bool):
            words.append(one.opts[0] if value else one.secondary_opts[0])
        elif value is not None:
            for each in value if isinstance(value, list | tuple) else [value]:
                text = str(each.resolve() if isinstance(each, Path) else each)
                words += [one.opts[0], text]
    return words
