"""Failures: how often each run of a study has failed, and why, in its failures.json.

Free of torch. A killed process counts no failure, since nothing says that the run was at fault.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout
from pydantic import ValidationError

from idat_zoo import files
from idat_zoo.errors import RunFolderError, ZooError
from idat_zoo.runs.lock import LEASE, acquire, lease_of
from idat_zoo.values import Frozen

FAILURES_FILE = "failures.json"
MOST_FAILURES = 3
"""The number of failures after which a run is left out."""


PATIENCE = LEASE + 30
"""Seconds for which another process may write failures.json."""
UNUSABLE = "cannot be used"
"""The words before the error of a result that cannot be read."""


class Failure(Frozen):
    """The number of times that a run has failed in a row, and the message of the last time."""

    count: int
    message: str

    @property
    def is_final(self) -> bool:
        """Whether the run is left out from now on."""
        return self.count >= MOST_FAILURES


class _Stored(Frozen):
    runs: dict[str, Failure]


class Failures:
    """The failures of a study's runs by their folders, read from the study's folder.

    A file that cannot be read counts as none. Each change is written at once, so that a kill loses
    none, and keeps what other processes have written meanwhile.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FAILURES_FILE
        self.of = self._read()

    def _read(self) -> dict[str, Failure]:
        try:
            return _Stored.model_validate_json(self._file.read_bytes()).runs
        except (OSError, ValidationError):
            return {}

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Read what is written, change it, and write it, while no other process does."""
        lock = self._file.with_name(f".{FAILURES_FILE}.lock")
        lease = lease_of(lock)
        try:
            acquire(lease, timeout=PATIENCE)
        except (OSError, Timeout) as error:
            raise RunFolderError(f"cannot write '{self._file}': {error}") from None
        try:
            self.of = self._read()
            yield
            document = _Stored(runs=self.of).model_dump(mode="json")
            files.write_whole(self._file, files.dump_json(document))
        finally:
            lease.release()

    @property
    def final(self) -> dict[str, str]:
        """The last message of each run that is left out from now on, by its folder."""
        return {run: own.message for run, own in self.of.items() if own.is_final}

    def add(self, run: str, error: ZooError) -> Failure:
        """Count one more failure of a run. Raises: RunFolderError if it cannot be written."""
        with self._changing():
            before = self.of.get(run)
            failure = Failure(
                count=1 + (0 if before is None else before.count), message=in_one_line(error)
            )
            self.of[run] = failure
        return failure

    def forget(self, run: str) -> None:
        """Remove the failures of a run. Raises: RunFolderError if that cannot be written."""
        if run in self.of:
            with self._changing():
                self.of.pop(run, None)


def in_one_line(error: ZooError) -> str:
    """The message of an error on one line, without its hint."""
    return " ".join(error.message.split())
