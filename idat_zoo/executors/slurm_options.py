"""The options of the executor for Slurm. Free of torch and of submitit."""

import re
import shlex
from typing import Annotated

from pydantic import AfterValidator, Field

from idat_zoo.values import Frozen

TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<fields>\d+(?::\d+){0,2})")
OURS = (
    *("array", "job-name", "output", "error", "open-mode", "signal", "requeue", "no-requeue"),
    *("wrap", "chdir", "nodes", "ntasks", "ntasks-per-node", "time", "cpus-per-task"),
)
"""Parameters of sbatch that the executor sets itself, or that are options of their own."""


def minutes_of(time: str) -> int:
    """A time limit in whole minutes, at least 1. Raises: ValueError for a text that is none."""
    found = TIME.fullmatch(time.strip())
    if found is None:
        raise ValueError("write minutes, or hours:minutes:seconds, or days-hours")
    numbers = [int(number) for number in found["fields"].split(":")]
    if found["days"] is not None:
        units: tuple[int, ...] = (3600, 60, 1)
    else:
        units = {1: (60,), 2: (60, 1), 3: (3600, 60, 1)}[len(numbers)]
    seconds = sum(number * unit for number, unit in zip(numbers, units, strict=False))
    return max(1, (int(found["days"] or 0) * 86400 + seconds + 59) // 60)


def parameters_of(words: str) -> dict[str, str | bool]:
    """The parameters of sbatch in words such as `--exclusive --reservation=lab`.

    Raises: ValueError for a word of another form, or a parameter that the executor sets.
    """
    found: dict[str, str | bool] = {}
    for word in shlex.split(words):
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            raise ValueError(f"write --NAME=VALUE or --NAME, and not '{word}'")
        if key in OURS:
            raise ValueError(f"--{key} is set by idat-zoo")
        found[key] = value if equals else True
    return found


def _check_time(time: str) -> str:
    minutes_of(time)
    return time


def _check_words(words: str) -> str:
    parameters_of(words)
    return words


class SlurmOptions(Frozen):
    """The options of a job; those that are left out are the cluster's own defaults.

    `time` is a limit in Slurm's words: minutes, hours:minutes:seconds or days-hours. `cpus` is also
    the number of threads that a pass computes with; `gpus` is 1 on CUDA unless given. `mem` is in
    Slurm's words, such as 8G. `parallel` is the largest number of jobs at the same time. `sbatch`
    has further parameters of sbatch, such as `--gres=gpu:a100:1 --reservation=lab`.
    """

    partition: str | None = None
    time: Annotated[str, AfterValidator(_check_time)] = "60"
    cpus: int = Field(default=1, ge=1)
    gpus: int | None = Field(default=None, ge=0)
    mem: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    parallel: int = Field(default=256, ge=1)
    sbatch: Annotated[str, AfterValidator(_check_words)] = ""
