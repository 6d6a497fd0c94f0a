"""Failures: how often each run of a study has failed, and why, in its failures.json.

Free of torch. A killed process counts no failure, since nothing says that the run was at fault.
"""

from pathlib import Path

from pydantic import ValidationError

from idat_zoo import files
from idat_zoo.errors import ZooError
from idat_zoo.values import Frozen

FAILURES_FILE = "failures.json"
MOST_FAILURES = 3
"""The number of failures after which a run is left out."""


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
    none.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FAILURES_FILE
        self.of: dict[str, Failure] = {}
        try:
            self.of = _Stored.model_validate_json(self._file.read_bytes()).runs
        except (OSError, ValidationError):
            self.of = {}

    @property
    def final(self) -> dict[str, str]:
        """The last message of each run that is left out from now on, by its folder."""
        return {run: own.message for run, own in self.of.items() if own.is_final}

    def add(self, run: str, error: ZooError) -> Failure:
        """Count one more failure of a run. Raises: RunFolderError if it cannot be written."""
        before = self.of.get(run)
        failure = Failure(
            count=1 + (0 if before is None else before.count), message=in_one_line(error)
        )
        self.of[run] = failure
        self._write()
        return failure

    def forget(self, run: str) -> None:
        """Remove the failures of a run. Raises: RunFolderError if that cannot be written."""
        if self.of.pop(run, None) is not None:
            self._write()

    def _write(self) -> None:
        document = _Stored(runs=self.of).model_dump(mode="json")
        files.write_whole(self._file, files.dump_json(document))


def in_one_line(error: ZooError) -> str:
    """The message of an error on one line, without its hint."""
    return " ".join(error.message.split())
