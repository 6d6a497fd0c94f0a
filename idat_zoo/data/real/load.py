"""The images and labels of the suite `real` as tensors; docs/data.md describes them.

Shape letters: N images, H W image.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from safetensors.numpy import load_file

from idat_zoo.data.decode import digest_pixels
from idat_zoo.data.image_file import as_rgb, resized
from idat_zoo.data.real.make_fashion import COLUMNS, IMAGES_FILE, SIDE, SPLITS_FILE
from idat_zoo.data.task_data import RawPixels, Split, TaskData
from idat_zoo.errors import UsageError
from idat_zoo.recipe import Task

FASHION = "fashion"
CLASS_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
"""Fashion-MNIST's names of the classes 0 to 9."""


def load_real(task: Task, img_size: int) -> TaskData:
    """The task's three splits, made RGB and resized as image files are.

    Raises: UsageError for a task that is not `fashion`.
    """
    if task.id != FASHION:
        raise UsageError(f"task '{task.id}' is said to be in the suite real, but is not.")
    folder = Path(__file__).parent
    tensors = load_file(folder / SPLITS_FILE)
    grey = read_sheet(folder / IMAGES_FILE)
    names = ("train", "val", "test")
    ends = np.cumsum([len(tensors[f"{name}.targets"]) for name in names])
    parts = dict(zip(names, np.split(grey[: ends[-1]], ends[:-1]), strict=True))

    def split(name: str) -> Split:
        images = [resized(as_rgb(Image.fromarray(one)), img_size) for one in parts[name]]
        pixels = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())
        return Split(
            images=pixels,
            targets=torch.from_numpy(tensors[f"{name}.targets"].astype(np.int64)),
            index=torch.from_numpy(tensors[f"{name}.index"].astype(np.int64)),
            pixels_sha256=digest_pixels(pixels),
        )

    flat = {name: part.reshape(len(part), -1).astype(np.float32) for name, part in parts.items()}
    return TaskData(
        task=task.with_names(CLASS_NAMES),
        train=split("train"),
        val=split("val"),
        test=split("test"),
        raw_pixels=RawPixels(
            trainval=np.concatenate([flat["train"], flat["val"]]), test=flat["test"]
        ),
    )


def read_sheet(path: Path) -> UInt8[np.ndarray, "N H W"]:
    """The images of a sheet of rows of 50, in order."""
    with Image.open(path) as image:
        sheet = np.asarray(image)
    rows = sheet.reshape(-1, SIDE, COLUMNS, SIDE).swapaxes(1, 2)
    images: UInt8[np.ndarray, "N H W"] = rows.reshape(-1, SIDE, SIDE)
    return images
