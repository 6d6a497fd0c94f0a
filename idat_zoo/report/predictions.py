"""Stored predictions of runs, read with numpy so that a report does not load torch.

Shape letters: N images, K classes.
"""

from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from idat_zoo import files
from idat_zoo.results import PREDICTIONS_FILE, Result


def read_predictions(path: Path, result: Result) -> dict[str, np.ndarray]:
    """Index, target and student logits of a run, by name; `path` is that of its result.json.

    Raises: ValueError that says why there are none, or why these are not the result's.
    """
    teacher = result.recipe.pair.teacher
    whose = f"the run with teacher {'none' if teacher is None else teacher.name}"
    file = path.with_name(PREDICTIONS_FILE)
    if not file.is_file():
        raise ValueError(f"{whose} has no {PREDICTIONS_FILE}")
    if files.sha256(file) != result.files.get(PREDICTIONS_FILE):
        raise ValueError(f"the {PREDICTIONS_FILE} of {whose} is not the one its result names")
    try:
        return safetensors.numpy.load(file.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"not a whole safetensors file ({error})") from None


def paired_counts(first: np.ndarray, second: np.ndarray, targets: np.ndarray) -> tuple[int, int]:
    """The number of images that only `first` classifies correctly, and that only `second` does.

    Logits are `[N, K]`, targets `[N]`.
    """
    right, other = first.argmax(1) == targets, second.argmax(1) == targets
    return int((right & ~other).sum()), int((other & ~right).sum())
