"""`idat env`: versions, devices and folders of this installation, for a bug report."""

import os
import platform
from importlib import metadata

import typer

from idat_zoo.cli.options import DATA_VARIABLE, SHELF_VARIABLE, JsonOption
from idat_zoo.cli.screen import print_json

PACKAGES = ("torch", "timm", "safetensors", "huggingface-hub", "scikit-learn", "numpy", "typer")


def env(json: JsonOption = False) -> None:
    """Versions, devices and folders, for a bug report."""
    from idat_zoo.registry.local import hub_cache

    facts = {
        "idat-zoo": _version("idat-zoo"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{package: _version(package) for package in PACKAGES},
        **_device_facts(),
        "hub cache": str(hub_cache()),
        SHELF_VARIABLE: os.environ.get(SHELF_VARIABLE, "not set"),
        DATA_VARIABLE: os.environ.get(DATA_VARIABLE, "not set"),
    }
    if json:
        print_json({"env": facts})
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            typer.echo(f"{name.ljust(width)}  {value}")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _device_facts() -> dict[str, str]:
    try:
        import torch
    except ImportError as error:
        return {"devices": f"torch cannot be imported: {error}"}
    gpus = [
        "{} ({}.{})".format(
            torch.cuda.get_device_name(index), *torch.cuda.get_device_capability(index)
        )
        for index in range(torch.cuda.device_count())
    ]
    return {
        "cpu threads": str(torch.get_num_threads()),
        "cuda": ", ".join(gpus) or "no device",
        "mps": "yes" if torch.backends.mps.is_available() else "no",
    }
