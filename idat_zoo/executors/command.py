"""The command that trains one pass of a study, for engines that run commands. Free of torch."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from idat_zoo.values import Frozen

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class CommandOptions(Frozen):
    """The options of printed commands: `cpus` is the number of threads of each, if it is given."""

    cpus: int | None = Field(default=None, ge=1)


def pass_command(
    name: str, number: int, folder: Path, options: CommandOptions, words: Sequence[str]
) -> str:
    """A shell command that trains pass `number` of the study `name` in its folder.

    `words` are further words of `idat study`. The command works from any folder.
    """
    threads = [f"{variable}={count}" for variable, count in thread_variables(options.cpus).items()]
    command = pass_words(name, number, str(folder.resolve()), words)
    return shlex.join([*(["env", *threads] if threads else []), *command])


def pass_words(name: str, number: int, folder: str, words: Sequence[str]) -> list[str]:
    """The words of a command that trains pass `number` of the study `name` in a folder."""
    return ["idat", "study", name, "--out", folder, "--pass", str(number), *words]


def thread_variables(cpus: int | None) -> dict[str, str]:
    """The variables that set a number of threads; none if it is not given."""
    return dict.fromkeys(THREAD_VARIABLES, str(cpus)) if cpus else {}
