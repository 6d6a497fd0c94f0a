"""Help texts: `--help` as plain text that is the same with every version of Typer.

Typer's own help reads `[/…]` as markup, and shows types (`<bool>`, `<list[str]>`) in a form that
depends on its version.
"""

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class PlainCommand(TyperCommand):
    """A command whose help names each argument and option once, in plain text."""

    context_class = typer.Context  # the class that a command's function may ask for

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words behind the command's name in the usage line: arguments, then [OPTIONS]."""
        return [*(str(one.metavar) for one in self._arguments()), "[OPTIONS]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, the options, and each named panel of options."""
        sections = {"Arguments": [(one.metavar, one.help or "") for one in self._arguments()]}
        for one in self.get_params(ctx):
            record = one.get_help_record(ctx)
            if record is not None and one.param_type_name == "option":
                panel = getattr(one, "rich_help_panel", None) or "Options"
                sections.setdefault(panel, []).append(record)
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def _arguments(self) -> list[Any]:
        return [one for one in self.params if one.param_type_name == "argument"]


class PlainGroup(TyperGroup):
    """A group that lists its commands in the order of their definition; alone, it prints help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of the command line; without any, as if --help were given."""
        return super().parse_args(ctx, args or ["--help"])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, then the options."""
        self.format_commands(ctx, formatter)
        rows = [one.get_help_record(ctx) for one in self.get_params(ctx)]
        with formatter.section("Options"):
            formatter.write_dl([row for row in rows if row is not None])
