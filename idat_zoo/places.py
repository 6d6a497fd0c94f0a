"""The user's own folders that no command line names, such as the cache."""

import os
from pathlib import Path

CACHE_VARIABLE = "IDAT_CACHE_DIR"


def default_cache() -> Path:
    """The cache folder: IDAT_CACHE_DIR, or idat-zoo below the user's cache folder."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "idat-zoo"
