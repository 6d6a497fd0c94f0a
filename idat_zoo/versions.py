"""The versions of Python and of the packages that numbers depend on."""

import platform
from importlib import metadata

PACKAGES = ("idat-zoo", "torch", "timm", "numpy", "pillow", "scikit-learn", "safetensors")


def versions() -> dict[str, str]:
    """The version of each package, and of Python, by name."""
    return {package: _version(package) for package in PACKAGES} | {
        "python": platform.python_version()
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
