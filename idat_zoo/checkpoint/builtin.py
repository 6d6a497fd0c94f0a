"""The checkpoints that ship with the package, which `builtin:NAME` names."""

from importlib import resources
from pathlib import Path

from idat_zoo.checkpoint.config import CONFIG_FILE
from idat_zoo.errors import UnknownNameError

BUILTIN = "builtin:"


def builtin_names() -> list[str]:
    """The names of the checkpoints that ship, without `builtin:`."""
    shipped = resources.files("idat_zoo.builtin")
    return sorted(entry.name for entry in shipped.iterdir() if (entry / CONFIG_FILE).is_file())


def find_builtin(name: str) -> Path:
    """The folder of a checkpoint that ships. Raises: UnknownNameError."""
    names = builtin_names()
    if name not in names:
        raise UnknownNameError("built-in checkpoint", name, names)
    return Path(str(resources.files("idat_zoo.builtin") / name))
