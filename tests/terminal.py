"""A real terminal for a command, of a given width."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

IDAT = Path(sys.executable).with_name("idat")


class Shown(NamedTuple):
    """How a command ended, and all that it wrote, stdout and stderr."""

    code: int
    text: str


def on_terminal(
    *words: str | Path,
    columns: int = 80,
    variables: Mapping[str, str] | None = None,
    stderr_alone: bool = False,
) -> Shown:
    """Run `idat WORDS` where stdin, stdout and stderr are a terminal, or only stdin and stderr."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    sizes = ("COLUMNS", "LINES")
    surroundings = {name: value for name, value in os.environ.items() if name not in sizes}
    with subprocess.Popen(
        [IDAT, *words],
        env=surroundings | {"TERM": "xterm", "OMP_NUM_THREADS": "1"} | dict(variables or {}),
        stdin=theirs,
        stdout=subprocess.DEVNULL if stderr_alone else theirs,
        stderr=theirs,
    ) as child:
        os.close(theirs)
        chunks = []
        while chunk := _read(ours):
            chunks.append(chunk)
    os.close(ours)
    return Shown(child.returncode, b"".join(chunks).decode().replace("\r\n", "\n"))


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that nobody writes any more
        return b""
