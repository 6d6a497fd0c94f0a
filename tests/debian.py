"""Packages of Debian that tests need, installed by root where they are missing."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock


class MissingError(Exception):
    """A program is missing, and cannot be installed."""


def install(programs: Sequence[str], packages: Sequence[str]) -> None:
    """Install the packages if a program is missing. Raises: MissingError."""
    with FileLock(Path(tempfile.gettempdir()) / "idat-tests-apt.lock"):  # tests run in parallel
        missing = [name for name in programs if shutil.which(name) is None]
        if not missing:
            return
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            told = f"{', '.join(missing)} missing, which root can install with apt-get alone"
            raise MissingError(told)
        _apt_get("update", "-qq")
        _apt_get("install", "-y", "-qq", "--no-install-recommends", *packages)


def _apt_get(*words: str) -> None:
    done = subprocess.run(
        ["apt-get", "-o", "DPkg::Lock::Timeout=300", *words],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MissingError(f"apt-get {words[0]} failed: {done.stderr.strip()[-500:]}")
