"""The lock of a run's folder, held by one process on this or another machine that shares the disk.

It is filelock's lease: a marker file names the process and its host, and its holder renews the
file's time. A dead process of this machine is recognised at once. A process of another machine
counts as dead after its marker was watched for `LEASE` seconds without a renewal, so the machines'
clocks need not agree. `flock` is not used, because the file systems of some clusters lack it. A
second file tells people since when the folder is locked; a process may end between the two files.
"""

import contextlib
import json
import math
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
"""Seconds without a renewal after which a holder counts as dead.

The marker is renewed four times as often. NFS may show a change a minute late.
"""
WAIT = "Add --wait to go on when it ends, or choose another --out."
"""The remedy for a folder in use, where the command has these options."""
SHORTLY = 1.0
"""Seconds for which acquiring the lock is tried before its holder is reported."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that holds a folder's lock. `silent` is the time since its last renewal in s."""

    host: str
    pid: int
    since: str
    silent: float

    def __str__(self) -> str:
        who = f"process {self.pid} on '{self.host}'" if self.pid else "a process without a name"
        begun = f"since {self.since}, " if self.since else ""
        return f"{who} ({begun}last sign of life {self.silent:.0f} s ago)"


def holder_of(folder: Path) -> Holder | None:
    """The live process that holds a folder's lock, or None. Nothing is written."""
    holder = _marked(folder)
    if holder is None or holder.silent > LEASE:
        return None
    return holder if holder.host != socket.gethostname() or _is_alive(holder.pid) else None


def _marked(folder: Path) -> Holder | None:
    """The process named by the marker in a folder, dead or alive; None without a marker."""
    marker = folder / LOCK_FILE
    try:
        silent = max(0.0, time.time() - marker.stat().st_mtime)
    except OSError:
        return None
    with contextlib.suppress(OSError, ValueError, TypeError):
        owner = json.loads((folder / OWNER_FILE).read_bytes())
        return Holder(**owner, silent=silent)
    written = lease_of(marker).owner
    if written is None:  # it was created, and its process or the machine ended before it was filled
        return Holder(host="", pid=0, since="", silent=silent)
    host = written.hostname.partition("?")[0]  # in a container, filelock adds "?pidns-…"
    return Holder(host=host, pid=written.pid, since="", silent=silent)


def lease_of(marker: Path, *, lost: Callable[[], None] = lambda: None) -> SoftFileLease:
    """The lease of a marker file. `lost` is called if another process takes it over."""
    return SoftFileLease(
        marker,
        lease_duration=LEASE,
        heartbeat_interval=LEASE / 4,
        on_compromise=lambda _: lost(),
    )


def acquire(lease: SoftFileLease, *, timeout: float) -> None:
    """Acquire a lease within `timeout` seconds, or in any time if it is negative.

    filelock creates a marker empty, fills it, and leaves an empty one for ever. If its process ends
    in between, the file by which each process announces that it acquires the lease tells who it
    was, and the marker is removed at once if that process is dead. A crash of the machine can leave
    an empty marker alone, which is removed after `LEASE` seconds without a renewal.

    Raises: Timeout; OSError if the folder cannot be written.
    """
    marker = Path(lease.lock_file)
    own = marker.with_name(f"{marker.name}.of.{os.getpid()}.{socket.gethostname()}")
    own.touch()
    try:
        _acquire_watching(lease, marker, timeout=timeout)
        for other in _announced(marker):
            if other != own and not _may_live(other):
                other.unlink(missing_ok=True)
    finally:
        own.unlink(missing_ok=True)


def _acquire_watching(lease: SoftFileLease, marker: Path, *, timeout: float) -> None:
    begun = time.monotonic()
    poll = 0.05 if 0 <= timeout <= SHORTLY else min(1.0, LEASE / 4)
    empty, since = _empty(marker), begun
    while True:
        left = math.inf if timeout < 0 else begun + timeout - time.monotonic()
        try:
            lease.acquire(timeout=max(0.0, min(LEASE / 4, left)), poll_interval=poll)
            return
        except Timeout:
            if empty is None or _empty(marker) != empty:
                empty, since = _empty(marker), time.monotonic()
            elif time.monotonic() - since >= LEASE or _created_by_the_dead(marker):
                lease.break_lock()
                continue
            if left <= LEASE / 4:
                raise


def _announced(marker: Path) -> list[Path]:
    """The files by which processes announce that they acquire the lease of a marker."""
    return list(marker.parent.glob(f"{marker.name}.of.*"))


def _may_live(announced: Path) -> bool:
    """Whether the process of such a file lives, or is one of another machine."""
    pid, _, host = announced.name.partition(".of.")[2].partition(".")
    return host != socket.gethostname() or not pid.isdecimal() or _is_alive(int(pid))


def _created_by_the_dead(marker: Path) -> bool:
    """Whether all other processes that announced themselves are dead, and there was one."""
    lives = [_may_live(one) for one in _announced(marker) if f".of.{os.getpid()}." not in one.name]
    return bool(lives) and not any(lives)


def _empty(marker: Path) -> tuple[int, int] | None:
    """What tells an empty marker from a later one; None if it is not empty, or not there."""
    try:
        if marker.read_bytes():
            return None
        found = marker.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


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
    folder: Path, *, wait: bool, note: Callable[[str], None], hint: str = WAIT
) -> Iterator[Callable[[], None]]:
    """Hold the lock of a run's folder; a folder that is created for it and stays empty is removed.

    Yields a function that raises a RunFolderError if another process has taken over the folder,
    which can happen to a process that was suspended. With `wait`, the end of a live holder is
    awaited. `note` receives messages for the user; `hint` is that of the error of a folder in use.

    Raises: RunFolderError if another process holds the lock, or the folder cannot be written.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    lost = threading.Event()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lease = lease_of(folder / LOCK_FILE, lost=lost.set)
        _acquire(lease, folder, wait=wait, note=note, hint=hint)
        try:
            _write_owner(folder)
        except OSError:  # a full disk
            lease.release()
            raise
    except OSError as error:  # filelock's Timeout is one, too, but `_acquire` has handled it
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
        with contextlib.suppress(OSError):  # a folder that is not empty stays, and its parents
            for place in made:
                place.rmdir()


def _acquire(
    lease: SoftFileLease, folder: Path, *, wait: bool, note: Callable[[str], None], hint: str
) -> None:
    try:
        acquire(lease, timeout=SHORTLY)
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
            acquire(lease, timeout=patience)
        except Timeout:
            raise RunFolderError(
                f"'{folder}' is in use by {_marked(folder) or 'another process'}.",
                hint=hint,
            ) from None
    if (folder / OWNER_FILE).exists():  # a holder that ends normally has removed it
        note(f"'{folder}' is taken over from a process that ended without a word")


def _write_owner(folder: Path) -> None:
    from idat_zoo.results import now  # only a holder needs it

    owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": now()}
    (folder / OWNER_FILE).write_text(json.dumps(owner))


def clear_lock(folder: Path) -> None:
    """Remove the lock files that a dead process left in the folder of a finished run."""
    marker = folder / LOCK_FILE
    if marker.exists() and holder_of(folder) is None:
        lease = lease_of(marker)
        with contextlib.suppress(OSError):  # the disk may be read-only
            if _empty(marker):
                lease.break_lock()
            acquire(lease, timeout=SHORTLY)
            (folder / OWNER_FILE).unlink(missing_ok=True)
            lease.release()


def is_lock(path: Path) -> bool:
    """Whether a file in a run's folder belongs to the lock, not to the run."""
    return path.name == OWNER_FILE or path.name.startswith(LOCK_FILE)
