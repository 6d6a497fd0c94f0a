"""The guard of a Ray that was started for one call: a process that removes what the call leaves.

    python ray_guard.py FOLDER

It waits until its standard input is closed, by the call or by the end of its process. Then it kills
the other processes with an open file in FOLDER, Ray's temporary folder, and removes it: Ray's
agents would outlive a call that is killed. Nothing is imported but the standard library.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

PATIENCE = 20.0
"""Seconds for which processes are looked for."""


def processes_in(folder: str, *, spared: int) -> list[int]:
    """The ids of processes of this user, but `spared`, with an open file in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            files = [str(link.readlink()) for link in (process / "fd").iterdir()]
        except OSError:  # it has ended, or is another user's
            continue
        if any(file.startswith(f"{folder}/") for file in files):
            found.append(int(process.name))
    return [pid for pid in found if pid != spared]


def clear(folder: str, *, spared: int) -> None:
    """Kill the processes but `spared` with an open file in a folder, and remove it."""
    deadline = time.monotonic() + PATIENCE
    while (left := processes_in(folder, spared=spared)) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:  # it has just ended
                continue
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    caller = os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    clear(sys.argv[1], spared=caller)
