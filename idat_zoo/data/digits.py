"""`digits`: scikit-learn's real handwritten digits, a first task that needs no download.

1,797 images of 8 x 8 pixels in 17 grey levels (UCI "Optical Recognition of Handwritten Digits",
its test part), as `sklearn.datasets.load_digits` ships them. Split 800 / 200 / 797, stratified by
class, seed 0. It is named as what it is: not a VTAB task.
"""

import numpy as np
import torch
from PIL import Image

from idat_zoo.data.task_data import RawPixels, Split, TaskData
from idat_zoo.recipe import Task


def load_digits(task: Task, img_size: int) -> TaskData:
    """The three splits, enlarged bicubically to `[N, 3, img_size, img_size]`."""
    from sklearn.datasets import load_digits as load_sklearn_digits
    from sklearn.model_selection import train_test_split

    source = load_sklearn_digits()
    targets = source.target.astype(np.int64)
    everything = np.arange(len(targets))
    trainval, test = train_test_split(everything, train_size=1000, stratify=targets, random_state=0)
    train800, val200 = train_test_split(
        trainval, train_size=800, stratify=targets[trainval], random_state=0
    )
    grey = np.rint(source.images * (255 / 16)).astype(np.uint8)

    def split(index: np.ndarray) -> Split:
        return Split(
            images=torch.from_numpy(_enlarge(grey[index], img_size)),
            targets=torch.from_numpy(targets[index]),
            index=torch.from_numpy(index),
        )

    ordered = np.concatenate([train800, val200])
    return TaskData(
        task=task,
        train800=split(train800),
        val200=split(val200),
        test=split(test),
        raw_pixels=RawPixels(trainval=source.data[ordered], test=source.data[test]),
    )


def _enlarge(grey: np.ndarray, img_size: int) -> np.ndarray:
    """uint8 [N, 8, 8] -> [N, 3, img_size, img_size], by Pillow's integer bicubic filter."""
    resized = [
        np.asarray(Image.fromarray(image).resize((img_size, img_size), Image.Resampling.BICUBIC))
        for image in grey
    ]
    return np.repeat(np.stack(resized)[:, None], 3, axis=1)
