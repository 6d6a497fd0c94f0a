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
    threads = [f"{variable}={options.cpus}" for variable in THREAD_VARIABLES if options.cpus]
    command = ["idat", "study", name, "--out", str(folder.resolve()), "--pass", str(number)]
    return shlex.join([*(["env", *threads] if threads else []), *command, *words])
