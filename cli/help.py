"""How `--help` looks: plain text that names each argument and option once, whatever the Typer.

Typer's own help reads `[/…]` as markup, and shows types (`<bool>`, `<list[str]>`) as its version
likes.
"""

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class PlainCommand(TyperCommand):
    """A command whose help shows its parameters as they are written."""

    context_class = typer.Context  # which its function may ask for

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What stands behind the command's name: arguments first, as they are given."""
        return [*(str(one.metavar) for one in self._arguments()), "[OPTIONS]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, options, and options of a panel of their own."""
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
    """Commands in the order in which they were added, before the options; alone, its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Words of the command line, or --help where there is none."""
        return super().parse_args(ctx, args or ["--help"])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The commands, then the options."""
        self.format_commands(ctx, formatter)
        rows = [one.get_help_record(ctx) for one in self.get_params(ctx)]
        with formatter.section("Options"):
            formatter.write_dl([row for row in rows if row is not None])
