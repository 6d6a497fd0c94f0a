"""The images and labels of the mini suite's six tasks as tensors; docs/mini.md describes them.

`digits` is real: 1,797 images of 8 x 8 pixels in 17 grey levels (UCI "Optical Recognition of
Handwritten Digits", its test part), as `sklearn.datasets.load_digits` ships them, split 800 / 200 /
797, stratified by class with seed 0. Importing scikit-learn takes two seconds, so its file of
digits is read directly, and `digits_splits.safetensors` beside this file holds the three splits, as
scikit-learn makes them; a test compares both with its own functions. The other five tasks are drawn
by code, and their images are split in the order in which they are drawn: 800 / 200 / 1,000.

Shape letters: N images, H W image, S input size, P pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from safetensors.numpy import load_file

from idat_zoo.data.decode import digest_pixels
from idat_zoo.data.mini import DRAWERS
from idat_zoo.data.mini.drawing import Drawing
from idat_zoo.data.task_data import RawPixels, Split, TaskData
from idat_zoo.errors import UsageError
from idat_zoo.recipe import Task

DIGITS = "digits"
SPLITS_FILE = Path(__file__).with_name("digits_splits.safetensors")
SIZES = (800, 200)


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A task's images before they are resized; `splits` are the indices of train, val and test."""

    images: UInt8[np.ndarray, "N H W 3"]
    targets: Int64[np.ndarray, "N"]
    raw: Float[np.ndarray, "N P"]
    splits: Sequence[Int64[np.ndarray, "_"]]
    class_names: Sequence[str] = ()


def load_mini(task: Task, img_size: int) -> TaskData:
    """The task's three splits, resized bicubically.

    Raises: UsageError for a task that is not one of the six.
    """
    if task.id != DIGITS and task.id not in DRAWERS:
        raise UsageError(f"task '{task.id}' is said to be in the mini suite, but is not.")
    source = _read_digits() if task.id == DIGITS else _draw(task.id)

    def split(index: Int64[np.ndarray, "_"]) -> Split:
        images = torch.from_numpy(_resize(source.images[index], img_size))
        return Split(
            images=images,
            targets=torch.from_numpy(source.targets[index]),
            index=torch.from_numpy(index),
            pixels_sha256=digest_pixels(images),
        )

    train, val, test = source.splits
    return TaskData(
        task=task.with_names(source.class_names),
        train=split(train),
        val=split(val),
        test=split(test),
        raw_pixels=RawPixels(
            trainval=source.raw[np.concatenate([train, val])], test=source.raw[test]
        ),
    )


def _read_digits() -> _Source:
    numbers, splits = _digits_numbers(), load_file(SPLITS_FILE)
    raw, targets = numbers[:, :-1], numbers[:, -1].astype(np.int64)
    grey = np.rint(raw.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return _Source(
        images=np.repeat(grey[..., None], 3, axis=3),
        targets=targets,
        raw=raw,
        splits=[splits[name].astype(np.int64) for name in ("train", "val", "test")],
    )


def _digits_numbers() -> Float[np.ndarray, "N 65"]:
    """The 64 grey levels of each digit, 0 to 16, and its class."""
    spec = find_spec("sklearn")  # which finds the package and does not import it
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    found = load_digits()
    return np.column_stack([found.data, found.target])


def _draw(name: str) -> _Source:
    drawing = _drawn(name)
    return _Source(
        images=drawing.images,
        targets=drawing.targets,
        raw=drawing.images.reshape(len(drawing.images), -1).astype(np.float32),
        splits=np.split(np.arange(len(drawing.targets)), np.cumsum(SIZES)),
        class_names=drawing.class_names,
    )


@cache
def _drawn(name: str) -> Drawing:
    """The drawing, kept for later runs of the process: 25 MB that take two seconds; read-only."""
    drawing = DRAWERS[name]()
    drawing.images.flags.writeable = drawing.targets.flags.writeable = False
    return drawing


def _resize(images: UInt8[np.ndarray, "N H W 3"], img_size: int) -> UInt8[np.ndarray, "N 3 S S"]:
    """Pillow's bicubic filter computes with integers, so the pixels are equal on every platform."""
    size = (img_size, img_size)
    resized = [Image.fromarray(i).resize(size, Image.Resampling.BICUBIC) for i in images]
    return np.stack([np.asarray(image).transpose(2, 0, 1) for image in resized])
