"""Experiment trackers by name. A new one is a file here and a line in `TRACKERS`, or a plugin."""

import importlib
from collections.abc import Sequence
from typing import Any

from idat_zoo.errors import UsageError
from idat_zoo.outside import TRACKERS_GROUP, check_class, claim, find_class
from idat_zoo.trackers.base import Tracker

TRACKERS = {
    "tensorboard": "idat_zoo.trackers.tensorboard:TensorBoard",
    "wandb": "idat_zoo.trackers.wandb:WeightsAndBiases",
    "trackio": "idat_zoo.trackers.wandb:Trackio",
    "mlflow": "idat_zoo.trackers.mlflow:MLflow",
}

claim(TRACKERS_GROUP, TRACKERS)

WHAT = "tracker"


def find_tracker(name: str) -> type[Tracker]:
    """The class of the tracker with a name; the packages it needs are imported.

    Raises: UnknownNameError; UsageError for a package that is not installed, or a plugin's class
    that is not a valid tracker.
    """
    found = check_tracker(name, find_class(WHAT, name, own=TRACKERS, group=TRACKERS_GROUP))
    for module in found.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            way = f"pip install 'idat-zoo[{name}]'" if name in TRACKERS else ""
            raise UsageError(
                f"tracker '{name}' needs a package that is not installed: {error}", hint=way
            ) from None
    return found


def find_trackers(names: Sequence[str]) -> list[type[Tracker]]:
    """The classes of trackers, each once. Raises: what `find_tracker` raises."""
    return [find_tracker(name) for name in dict.fromkeys(names)]


def check_tracker(name: str, found: Any) -> type[Tracker]:
    """Check that a class is a tracker with this name, and return it. Raises: UsageError."""
    check_class(WHAT, name, found, base=Tracker, facts=("name",))
    tracker: type[Tracker] = found
    return tracker
