"""Folders of the user's own that are not named on a command line."""

import os
from pathlib import Path

CACHE_VARIABLE = "IDAT_CACHE_DIR"


def default_cache() -> Path:
    """IDAT_CACHE_DIR, else idat-zoo below the user's cache folder."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "idat-zoo"
