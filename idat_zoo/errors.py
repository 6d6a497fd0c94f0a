"""The tree of errors. Each says what was given, what was expected, and what to do.

ZooError                exit code 1
├── UsageError          2  the command line asks for something impossible
│   ├── UnknownNameError   an unknown name, with the nearest known ones
│   └── RecipeError        a recipe or shelf with faults; all of them in one message
├── DataError           1  images or lists missing, damaged or not as declared
├── WeightsError        1  a backbone's weights are not here or not the expected ones
├── WalkError           1  timm computes a backbone differently from our walk
├── CheckpointError     1  a published adapter that cannot be trusted or does not fit
├── HubError            1  the Hub cannot be reached, or lacks what is asked for
├── RunFolderError      1  a run folder holds something else, is unfinished or cannot be written
├── DeviceError         1  no such device, or its memory is full
├── TrainingError       1  a trained tensor gets no gradient
│   └── DivergedError      the loss is not finite, or far above that of guessing
└── InputError          1  a network was called with a wrong argument; a TypeError, too
"""

import difflib
import errno
from collections.abc import Iterable
from typing import Any

FULL = {errno.ENOSPC, errno.EDQUOT}
IN_THE_WAY = {errno.EBUSY, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
FORBIDDEN = {errno.EACCES, errno.EPERM}


class PluginWarning(UserWarning):
    """A plugin is skipped, or something is loaded with another plugin than it was made with."""


class ZooError(Exception):
    """A mistake of the user or a fault of the environment: one line, and a hint what to do."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the error as it is, whatever its constructor takes."""
        return _unmade, (type(self), self.args), self.__dict__


def _unmade(kind: type[ZooError], args: tuple[Any, ...]) -> ZooError:
    """An error before its constructor has run."""
    return kind.__new__(kind, *args)


class UsageError(ZooError):
    """The command line asks for something impossible."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is not known, with the nearest names that are.

    Where none is near, the hint has those that are known, and where they were `looked` for.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, looked: str = "") -> None:
        names = sorted(known)
        near = near_names(name, names)
        quoted = " or ".join(f"'{n}'" for n in near)
        shown = ", ".join(names[:30]) + (", …" if len(names) > 30 else "")
        super().__init__(
            f"unknown {kind} '{name}'." + (f" Did you mean {quoted}?" if near else ""),
            hint="" if near else f"Known: {shown}" + (f". Looked {looked}." if looked else ""),
        )


def folded(name: str) -> str:
    """A name in the form in which names are compared: lower case, with `_` for `-`."""
    return name.casefold().replace("-", "_")


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """At most three known names that may have been meant, the nearest first."""
    spelt: dict[str, list[str]] = {}
    for each in known:
        spelt.setdefault(folded(each), []).append(each)
    wanted = folded(name)
    below = [key for key in spelt if key.endswith(f".{wanted}")]
    near = difflib.get_close_matches(wanted, spelt, n=3, cutoff=0.5)
    keys = [wanted] if wanted in spelt else dict.fromkeys([*below, *near])
    return [each for key in keys for each in spelt[key]][:3]


class RecipeError(UsageError):
    """A recipe or a shelf with faults, all of them in one message."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = list(faults)
        count = len(self.faults)
        head = "1 fault" if count == 1 else f"{count} faults"
        super().__init__(
            self.faults[0] if count == 1 else f"{head}:\n  " + "\n  ".join(self.faults)
        )


class DataError(ZooError):
    """Images or lists are missing, damaged or not as the task declares them.

    The message may show the first of many faults; `faults` holds them all.
    """

    def __init__(self, message: str, *, hint: str = "", faults: Iterable[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.faults = tuple(faults) or (message,)


class WeightsError(ZooError):
    """A backbone's weights are not here, or are not the expected ones."""


class WalkError(ZooError):
    """The installed timm computes a backbone differently from our walk through it."""


class CheckpointError(ZooError):
    """A published adapter that cannot be trusted or does not fit."""


class HubError(ZooError):
    """The Hub cannot be reached, refuses a request, or lacks what is asked for."""


class RunFolderError(ZooError):
    """A run folder holds something else, is unfinished, or cannot be written."""


class DeviceError(ZooError):
    """There is no such device, or its memory is full."""


class TrainingError(ZooError):
    """The loss is not finite, or a trained tensor gets no gradient."""


class EngineError(TrainingError):
    """What trained a run, such as Ray, has ended; nothing says that the run was at fault."""


class DivergedError(TrainingError):
    """The loss is not finite, or in the last epoch far above that of guessing."""


class InputError(ZooError, TypeError):
    """A network, a transform or `run` was called with an argument that it does not accept."""


def way_to_write(error: OSError, *, other: str) -> str:
    """The remedy where a file cannot be written, by the system's reason; '' for other reasons.

    `other` names another place, such as "another --out".
    """
    reasons = {
        **dict.fromkeys(FULL, f"Free space on that disk, or choose {other}."),
        **dict.fromkeys(IN_THE_WAY, f"A file or folder stands in the way: choose {other}."),
        **dict.fromkeys(FORBIDDEN, f"Choose {other}, where you may write."),
        errno.EROFS: f"That disk is read-only: choose {other}.",
        errno.EFBIG: f"Files may not grow that large there (ulimit -f): choose {other}.",
        errno.ENAMETOOLONG: f"Choose {other}, with a shorter path.",
    }
    return reasons.get(error.errno or 0, "")


PLAIN = {
    "Field required": "is missing",
    "Input should be a valid integer": "must be a whole number",
    "Input should be a valid number": "must be a number",
    "Input should be a valid boolean": "must be true or false",
    "Input should be a valid string": "must be a text",
    "Input should be a valid dictionary": "must be a table of keys and values",
    "Input should be a valid list": "must be a list",
    "Input should be a valid tuple": "must be a list",
}
"""Beginnings of pydantic's messages, and how we say them whole."""


def plainly(message: str) -> str:
    """A message of pydantic in our words, as far as it is one of the common kinds."""
    for theirs, ours in PLAIN.items():
        if message.startswith(theirs):
            return ours
    message = message.removeprefix("Value error, ")
    own = message.removeprefix("Input should be ")
    return message if own == message else f"must be {own}"
