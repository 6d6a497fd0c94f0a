"""TensorBoard's event files, read back."""

import json
from pathlib import Path
from typing import Any

import numpy as np


def read_events(run: Path) -> Any:
    """What the event files of a run's folder hold, all of them together."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run / "tensorboard")).Reload()


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """The steps and values of each scalar, by its name."""
    events = read_events(run)
    return {
        name: [(point.step, point.value) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def texts(run: Path) -> dict[str, str]:
    """The last of each text, by its name."""
    events = read_events(run)
    return {
        tag.removesuffix("/text_summary"): events.Tensors(tag)[-1]
        .tensor_proto.string_val[0]
        .decode()
        for tag in events.Tags()["tensors"]
    }


def logged(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What log.jsonl holds, as the scalars of event files, which are float32."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    found: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        epoch = line.pop("epoch")
        for name, value in line.items():
            found.setdefault(name, []).append((epoch, float(np.float32(value))))
    return found
