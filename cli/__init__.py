"""The `idat` command line: the Typer application, its commands, and how errors end a command.

A ZooError is printed as one line with a hint on stderr, and decides the exit code. Torch and other
heavy packages are imported only when a command runs.
"""

from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Annotated, Any, NoReturn

import typer

from idat_zoo.cli import (
    compare,
    cp,
    data,
    env,
    evaluate,
    export,
    import_adapter,
    list_shelves,
    merge,
    predict,
    publish,
    report,
    screen,
    show,
    study,
    torchrun,
    train,
    validate,
)
from idat_zoo.cli.help import CONTEXT, PlainCommand, PlainGroup
from idat_zoo.cli.imports import leave_uncollected_at_exit
from idat_zoo.cli.unknown import NoSuchOption, unknown_option
from idat_zoo.errors import UnknownNameError, ZooError

INTERRUPTED = 130


class ZooGroup(PlainGroup):
    """A group of commands that prints their errors in one place."""

    # Any: click's Context, which newer Typers keep to themselves
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first word names. Raises: UnknownNameError."""
        ctx.obj = list(args)  # the parser empties the list
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise UnknownNameError("command", args[0], self.commands)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; turn errors and interrupts into a message and an exit code."""
        try:
            try:
                with screen.plugin_warnings_as_notes():
                    return super().invoke(ctx)
            except NoSuchOption as error:
                raise unknown_option(error, ctx.obj) from None
        except ZooError as error:
            _end(error, ctx.obj)
        except BrokenPipeError:
            raise  # `idat … | head`: Typer ends quietly
        except OSError as error:  # a path that may not be read, say
            _end(ZooError(f"{error.strerror or error}: '{error.filename}'"), ctx.obj)
        except KeyboardInterrupt:
            later = {
                "train": "; an unfinished training goes on with --resume",
                "study": "; the same command goes on",
            }
            screen.note(f"interrupted{later.get(ctx.invoked_subcommand, '')}")
            raise typer.Exit(INTERRUPTED) from None


def _end(error: ZooError, words: Sequence[str]) -> NoReturn:
    """End a command that printed no result; with --json, its document holds the error."""
    if "--json" in words:
        screen.print_json({"error": error.message, "hint": error.hint})
    screen.end(error)


app = typer.Typer(
    cls=ZooGroup,
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,
    context_settings=CONTEXT,
)


def _print_version(asked: bool) -> bool:
    if asked:
        typer.echo(f"idat-zoo {metadata.version('idat-zoo')}")
        raise typer.Exit
    return asked


@app.callback()
def idat(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="The version."),
    ] = False,
) -> None:
    """Train, evaluate, publish and browse adapters on frozen vision transformers.

    To begin with, and nothing is downloaded:

    \b
      idat list                                 see adapters, pairs and tasks
      idat eval builtin:digits-lora             try an adapter that ships
      idat train --task digits --adapter lora   train one, with its teacher

    idat COMMAND --help says more of each.
    """
    torchrun.check_command(context.invoked_subcommand or "")


COMMANDS: dict[str, Callable[..., None]] = {
    "train": train.train,
    "eval": evaluate.evaluate_command,
    "predict": predict.predict,
    "merge": merge.merge,
    "export": export.export,
    "import": import_adapter.import_adapter,
    "publish": publish.publish,
    "list": list_shelves.list_shelves,
    "show": show.show,
    "cp": cp.copy_recipe,
    "validate": validate.validate,
    "report": report.report,
    "compare": compare.compare,
    "env": env.env,
}
for name, command in COMMANDS.items():
    app.command(name, cls=PlainCommand)(command)
app.add_typer(data.app, name="data", cls=ZooGroup)
app.add_typer(study.app, name="study", cls=study.StudyGroup)


def main() -> None:
    """The entry point of the `idat` command."""
    leave_uncollected_at_exit()
    with torchrun.first_alone_prints():
        app(prog_name="idat")
