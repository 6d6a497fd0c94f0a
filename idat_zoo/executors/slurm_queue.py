"""The queue of a Slurm cluster, as its own commands print it. Free of torch and submitit.

`squeue` is asked and not `sacct`, because a cluster may keep no accounts.
"""

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from idat_zoo.errors import UsageError

PATIENCE = 60.0
"""Seconds within which a command of Slurm must answer."""
ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
"""The states that a job does not leave; one that is requeued is PENDING."""


class NoAnswerError(Exception):
    """A command of Slurm failed, or did not answer; what it said."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job or the element of an array: its id, Slurm's state, the reason, and its name."""

    id: str
    state: str
    reason: str
    name: str

    @property
    def has_ended(self) -> bool:
        """Whether Slurm will not run it any more."""
        return self.state in ENDED

    @property
    def element(self) -> int:
        """Its place in the array; 0 for a job that is none."""
        return int(self.id.partition("_")[2] or 0)


def ask(*words: str) -> str:
    """What a command of Slurm prints. Raises: NoAnswerError."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=PATIENCE, errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise NoAnswerError(f"{words[0]}: no answer in {PATIENCE:.0f} s") from None
    except OSError as error:
        raise NoAnswerError(f"{words[0]}: {error.strerror}") from None
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]  # the lines before lead to it
        raise NoAnswerError(last.strip() or f"{words[0]} failed")
    return done.stdout


def check_cluster(partition: str | None) -> None:
    """Check that jobs can be submitted, to a partition if one is named.

    Raises: UsageError without Slurm's commands, an answering controller, or the partition.
    """
    for program in ("sbatch", "srun", "squeue", "sinfo", "scancel"):
        if shutil.which(program) is None:
            raise UsageError(
                f"no {program} is found: this machine submits no jobs to Slurm.",
                hint="Call it on a login node of the cluster.",
            )
    try:
        partitions = [name.rstrip("*") for name in ask("sinfo", "-h", "-a", "-o", "%P").split()]
    except NoAnswerError as error:
        raise UsageError(
            f"Slurm's controller does not answer: {error}", hint="`scontrol ping` asks it."
        ) from None
    if partition is not None:
        missing = [name for name in partition.split(",") if name not in partitions]
        if missing:
            raise UsageError(
                f"Slurm has no partition '{missing[0]}'; there are: {', '.join(partitions)}"
            )


def read_queue(names: Iterable[str]) -> dict[str, Job]:
    """The jobs with one of these names by their ids, also those that ended lately.

    Raises: NoAnswerError.
    """
    chosen = ",".join(names)
    if not chosen:
        return {}
    form = "%i|%T|%r|%j"
    printed = ask(
        "squeue", "--noheader", "--array", "--states=all", f"--name={chosen}", f"--format={form}"
    )
    rows = (line.split("|", 3) for line in printed.splitlines() if line.count("|") >= 3)
    return {
        own[0]: Job(id=own[0], state=own[1], reason=own[2], name=own[3].strip()) for own in rows
    }
