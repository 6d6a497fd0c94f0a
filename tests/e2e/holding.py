"""A run of a study that is stopped in the middle, so that a test can end it there in time."""

import json
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 400.0
"""Seconds within which a run must have begun."""


@dataclass(frozen=True)
class Held:
    """A stopped process `pid` that trains the run in `folder`, and has not finished it."""

    pid: int
    folder: Path

    def go_on(self) -> None:
        """Let the process run again, if it is there."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def stay(self) -> None:
        """Wait for the end of the process, which nothing that wakes it lets train on."""
        deadline = time.monotonic() + 60
        with suppress(ProcessLookupError):
            while not has_ended(self.pid):
                assert time.monotonic() < deadline, f"process {self.pid} lives on"
                os.kill(self.pid, signal.SIGSTOP)
                time.sleep(0.005)

    def kill(self) -> None:
        """End the process at once."""
        os.kill(self.pid, signal.SIGKILL)


def random_epoch(name: str, *, last: int = 40) -> int:
    """An epoch from 1 to `last`, the same for a name at each time."""
    return random.Random(name).randint(1, last)


def hold(out: Path, calling: "subprocess.Popen[str]", *, epochs: int) -> Held:
    """Stop a process that trains a run below `out` and has saved so many epochs."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert calling.poll() is None, calling.communicate()
        for log in out.rglob("log.jsonl"):
            with suppress(OSError, ValueError):  # it has just begun, or ended
                if log.read_bytes().count(b"\n") >= epochs and (held := _stopped(log.parent)):
                    return held
        time.sleep(0.02)
    raise AssertionError(f"no run has saved {epochs} epochs")


def _stopped(folder: Path) -> Held | None:
    """The process that holds a run's folder, stopped; None if the run was finished meanwhile."""
    held = Held(int(json.loads((folder / ".owner.json").read_bytes())["pid"]), folder)
    os.kill(held.pid, signal.SIGSTOP)
    while _state(held.pid) != "T":
        time.sleep(0.001)
    if (folder / "result.json").exists() or not (folder / ".owner.json").exists():
        held.go_on()
        return None
    return held


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or only waits for its parent to notice."""
    try:
        return _state(pid) in "ZX"
    except OSError:
        return True


def _state(pid: int) -> str:
    """The letter by which Linux names the state of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def environment_of(pid: int) -> dict[str, str]:
    """The variables with which a process was started."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)
