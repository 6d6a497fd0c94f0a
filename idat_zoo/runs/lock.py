"""One process at a time in a run's folder, on this machine or another that shares the disk.

filelock's lease: a marker with the process and its host, whose time its holder renews. A process of
this machine that has died is known at once; another machine's is taken for dead when its marker was
watched for `LEASE` seconds without being renewed, so clocks need not agree. No `flock`, which some
clusters' file systems do not have. A second file says since when, for people.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import SoftFileLease, Timeout

from idat_zoo.errors import RunFolderError, way_to_write

LOCK_FILE = ".lock"
OWNER_FILE = ".owner.json"
LEASE = 120.0
"""Seconds; the marker is renewed four times in them. NFS may show a change a minute late."""
SHORTLY = 1.0
"""Seconds for which a lock is tried before its holder is named."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that holds a run's folder; `silent` are the seconds since it said so last."""

    host: str
    pid: int
    since: str
    silent: float

    def __str__(self) -> str:
        return (
            f"process {self.pid} on '{self.host}' (since {self.since}, last sign of life "
            f"{self.silent:.0f} s ago)"
        )


def holder_of(folder: Path) -> Holder | None:
    """Who works in a run's folder now, as far as can be seen without touching anything."""
    holder = _marked(folder)
    if holder is None or holder.silent > LEASE:
        return None
    return holder if holder.host != socket.gethostname() or _is_alive(holder.pid) else None


def _marked(folder: Path) -> Holder | None:
    """Whose marker lies in a folder, be it alive or dead."""
    try:
        silent = max(0.0, time.time() - (folder / LOCK_FILE).stat().st_mtime)
    except OSError:
        return None
    try:
        owner = json.loads((folder / OWNER_FILE).read_bytes())
        return Holder(**owner, silent=silent)
    except (OSError, ValueError, TypeError):  # it stopped between two writes
        return Holder(host="?", pid=0, since="?", silent=silent)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def alone_in(
    folder: Path, *, wait: bool, note: Callable[[str], None]
) -> Iterator[Callable[[], None]]:
    """Hold a run's folder, which is made if need be; it goes again where nothing was put into it.

    What it gives raises RunFolderError once another process has taken the folder over, as it may
    from one that was asleep. With `wait`, a live holder is waited for.

    Raises: RunFolderError naming who holds the folder, or where it cannot be written.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    lost = threading.Event()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lease = SoftFileLease(
            folder / LOCK_FILE,
            lease_duration=LEASE,
            heartbeat_interval=LEASE / 4,
            on_compromise=lambda _: lost.set(),
        )
        _acquire(lease, folder, wait=wait, note=note)
        _write_owner(folder)
    except OSError as error:  # Timeout is one too, but is told by then
        raise RunFolderError(
            f"cannot write '{folder}': {error.strerror or error}",
            hint=way_to_write(error, other="another --out"),
        ) from error

    def still_ours() -> None:
        if lost.is_set():
            raise RunFolderError(
                f"'{folder}' was taken over by {_marked(folder)} while this process gave no sign "
                "of life.",
                hint="Its training goes on there; this one ends.",
            )

    try:
        yield still_ours
    finally:
        if not lost.is_set():
            (folder / OWNER_FILE).unlink(missing_ok=True)
        lease.release()
        with contextlib.suppress(OSError):  # one that is not empty stays, and those above it
            for place in made:
                place.rmdir()


def _acquire(
    lease: SoftFileLease, folder: Path, *, wait: bool, note: Callable[[str], None]
) -> None:
    try:
        lease.acquire(timeout=SHORTLY)
    except Timeout:
        holder = _marked(folder)
        if holder is not None and holder.silent > LEASE and not wait:
            note(f"'{folder}': {holder} is taken for dead unless it says more in {LEASE:.0f} s")
            patience = LEASE + SHORTLY
        elif wait:
            note(f"waiting for {holder}, which trains in '{folder}'")
            patience = -1.0
        else:
            patience = 0.0
        try:
            lease.acquire(timeout=patience, poll_interval=min(1.0, LEASE / 4))
        except Timeout:
            raise RunFolderError(
                f"'{folder}' is in use by {_marked(folder) or 'another process'}.",
                hint="Add --wait to go on when it ends, or choose another --out.",
            ) from None
    if (folder / OWNER_FILE).exists():  # a holder that ends removes it first
        note(f"'{folder}' is taken over from a process that ended without a word")


def _write_owner(folder: Path) -> None:
    from idat_zoo.results import now  # loads torch, which asking for a holder must not

    owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": now()}
    (folder / OWNER_FILE).write_text(json.dumps(owner))


def clear_lock(folder: Path) -> None:
    """Remove what a dead process left in a folder that nobody needs to hold any more."""
    if (folder / LOCK_FILE).exists() and holder_of(folder) is None:
        lease = SoftFileLease(folder / LOCK_FILE, lease_duration=LEASE)
        with contextlib.suppress(OSError), lease.acquire(timeout=SHORTLY):  # or read-only
            (folder / OWNER_FILE).unlink(missing_ok=True)


def is_lock(path: Path) -> bool:
    """Whether a file in a run's folder is of the lock, and so of no run."""
    return path.name == OWNER_FILE or path.name.startswith(LOCK_FILE)
