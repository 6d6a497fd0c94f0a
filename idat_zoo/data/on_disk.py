"""The data folder: where it is, and the record that a pull leaves in a task's folder."""

import json
import os
import shlex
from pathlib import Path

SOURCE_FILE = "source.json"
"""Written by `idat data pull` into a task's folder: from which copy its images came."""


def data_folder(given: Path | None) -> Path:
    """The folder that holds the tasks' folders: `given`, else the user's data folder.

    The user's data folder is where `idat data pull` writes without `--data-dir`.
    """
    if given is not None:
        return given
    home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(home).expanduser() / "idat-zoo" / "data"


def pulled_from(folder: Path) -> str | None:
    """The source and commit in a task folder's source.json; None if there is no such record."""
    path = folder / SOURCE_FILE
    if not path.is_file():
        return None
    try:
        written = json.loads(path.read_bytes())
        return f"{written['source']} at {written['commit']}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def verify_command(task: str, data_dir: Path | None) -> str:
    """The command that lists every fault of a task's images; `task` may be the word `folder`."""
    place = [] if data_dir is None else ["--data-dir", str(data_dir)]
    return shlex.join(["idat", "data", "verify", task, *place])
