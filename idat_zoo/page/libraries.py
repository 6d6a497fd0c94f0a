"""The libraries that the page needs, which are not among those of idat-zoo itself."""

from importlib.util import find_spec

from idat_zoo.errors import ZooError


def check_libraries() -> None:
    """Raises: ZooError, in one line, if matplotlib or Jinja2 is not installed."""
    for name in ("matplotlib", "jinja2"):
        if find_spec(name) is None:
            raise ZooError(
                f"--html needs {name}, which is not installed.",
                hint="pip install 'idat-zoo[report]'",
            )
