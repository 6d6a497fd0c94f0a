"""Which weights and images are on this machine, found without torch and without the network."""

import os
from pathlib import Path

import idat_zoo.recipe
from idat_zoo.data.suites import suite_of
from idat_zoo.recipe import Backbone, Pair, Task

SHIPPED = Path(idat_zoo.recipe.__file__).parent / "backbones" / "weights"


def weights_here(backbone: Backbone) -> bool:
    """Whether a backbone needs no download: its weights are random, shipped, cached or a file."""
    if backbone.weights == "random":
        return True
    if backbone.own_file:
        from idat_zoo.own_weights import missing_file  # few backbones need it

        return not missing_file(backbone)
    kind, _, file = backbone.weights.partition(":")
    if kind == "builtin":
        return (SHIPPED / f"{file}.safetensors").is_file()
    folder = hub_cache() / f"models--timm--{backbone.timm}.{backbone.weights}"
    return any(folder.glob("snapshots/*/model.safetensors"))


def pair_weights_here(pair: Pair) -> bool:
    """Whether neither network of a pair needs a download."""
    return all(map(weights_here, pair.backbones()))


def images_here(task: Task, data_dir: Path | None) -> bool:
    """Whether a task is built in, or every list of its images is in the data folder."""
    return not suite_of(task).missing(task, data_dir)


def hub_cache() -> Path:
    """The Hub's cache folder, found by the environment variables that huggingface_hub reads."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    cache_home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache_home).expanduser() / "huggingface" / "hub"
