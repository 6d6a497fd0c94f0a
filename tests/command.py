"""The command line `idat`, called in this process."""

from typer.testing import CliRunner, Result

from idat_zoo.cli import app


def idat(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})
