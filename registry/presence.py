"""What is on this machine already, told without torch, without the Hub's library and offline."""

import os
from pathlib import Path

import idat_zoo.recipe
from idat_zoo.data.suites import suite_of
from idat_zoo.recipe import Backbone, Task

SHIPPED = Path(idat_zoo.recipe.__file__).parent / "backbones" / "weights"


def weights_here(backbone: Backbone) -> bool:
    """Whether no download is needed: random, shipped, or in the Hub's cache."""
    if backbone.weights == "random":
        return True
    kind, _, file = backbone.weights.partition(":")
    if kind == "builtin":
        return (SHIPPED / f"{file}.safetensors").is_file()
    folder = hub_cache() / f"models--timm--{backbone.timm}.{backbone.weights}"
    return any(folder.glob("snapshots/*/model.safetensors"))


def images_here(task: Task, data_dir: Path | None) -> bool:
    """Whether the task is built in, or all its lists lie under the data folder."""
    return not suite_of(task).missing(task, data_dir)


def hub_cache() -> Path:
    """The Hub's cache folder, by the environment variables that huggingface_hub reads."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    cache_home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache_home).expanduser() / "huggingface" / "hub"
