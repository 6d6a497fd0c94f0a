"""Stored predictions of runs, read with numpy so that a report does not load torch.

Shape letters: N images, K classes.
"""

from hashlib import sha256
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from idat_zoo.results import PREDICTIONS_FILE, Result

CLASSES_FILE = "classes.safetensors"
"""The predicted classes beside a result whose logits are not kept: a few kB in place of many."""
LOGIT_ENSEMBLE = "logit_ensemble"
"""The sum of student's and teacher's logits, among the predictions of a run."""


def read_predictions(path: Path, result: Result) -> dict[str, np.ndarray]:
    """Index, target and student logits of a run, by name; `path` is that of its result.json.

    Raises: ValueError that says why there are none, or why these are not the result's.
    """
    teacher = result.recipe.pair.teacher
    whose = f"the run with teacher {'none' if teacher is None else teacher.name}"
    file = path.with_name(PREDICTIONS_FILE)
    if not file.is_file():
        raise ValueError(f"{whose} has no {PREDICTIONS_FILE}")
    content = file.read_bytes()
    if sha256(content).hexdigest() != result.files.get(PREDICTIONS_FILE):
        raise ValueError(f"the {PREDICTIONS_FILE} of {whose} is not the one its result names")
    return _parsed(content)


def read_classes(path: Path, result: Result) -> dict[str, np.ndarray]:
    """Index, target, and the classes that each network of a run predicts, all `[N]`, by name.

    The networks are `student`, and with a teacher `teacher` and `logit_ensemble`. They are read
    from the logits beside result.json, whose path is `path`, or else from `CLASSES_FILE`.

    Raises: ValueError that says why there are none, or why these are not the result's.
    """
    file = path.with_name(CLASSES_FILE)
    if path.with_name(PREDICTIONS_FILE).is_file() or not file.is_file():
        file = path.with_name(PREDICTIONS_FILE)
        classes = as_classes(read_predictions(path, result))
    else:
        classes = _parsed(file.read_bytes())
    right = float((classes["student"] == classes["target"]).mean())
    if abs(right - result.top1) > 1e-9:
        raise ValueError(f"the {file.name} has top-1 {right:.4f}, its result {result.top1:.4f}")
    return classes


def as_classes(predictions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Predictions with the class of the largest logit in place of the logits."""
    logits = {name: values for name, values in predictions.items() if values.ndim == 2}
    if logits.keys() >= {"student", "teacher"}:
        logits[LOGIT_ENSEMBLE] = logits["student"] + logits["teacher"]
    rest = {name: values for name, values in predictions.items() if values.ndim == 1}
    return rest | {name: values.argmax(1) for name, values in logits.items()}


def _parsed(content: bytes) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load(content)
    except SafetensorError as error:
        raise ValueError(f"not a whole safetensors file ({error})") from None


def paired_counts(first: np.ndarray, second: np.ndarray, targets: np.ndarray) -> tuple[int, int]:
    """The number of images that only `first` classifies correctly, and that only `second` does.

    Predicted classes and targets are `[N]`.
    """
    right, other = first == targets, second == targets
    return int((right & ~other).sum()), int((other & ~right).sum())
