"""Baselines of a task without any network: chance, the majority class, raw-pixel classifiers.

Shape letters: M images, P pixels.
"""

import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import interpolate

from idat_zoo import files
from idat_zoo.data.decode import Images, StreamedImages
from idat_zoo.data.task_data import TaskData
from idat_zoo.errors import RunFolderError
from idat_zoo.randomness import generator
from idat_zoo.results import RawPixels
from idat_zoo.values import Frozen
from idat_zoo.versions import versions

SIDE, MOST_TRAINING, MOST_TEST = 32, 1000, 5000
RULE = 1
"""The version of the computation in `_pixel_baselines`, part of the cache key; raise it with any
change of the numbers."""
AT_ONCE = 256


class Baselines(Frozen):
    """The top-1 of each baseline on test by name, a fraction.

    `raw_pixels` is set if images were downscaled or left out.
    """

    top1: dict[str, float]
    raw_pixels: RawPixels | None = None


def find_baselines(data: TaskData, cache: Path) -> Baselines:
    """The baselines: chance (1 / K), the most frequent training class, and raw-pixel classifiers.

    Built-in tasks use all pixels of all images. For other tasks, images are downscaled to 32 x 32
    at most by averaging areas, and at most 1,000 training and 5,000 test images are used, drawn
    with seed 0. The outcome is cached under the fingerprint of the images.
    """
    plain = {"chance": 1 / data.task.num_classes, "majority_class": _majority_class(data)}
    found = _kept(data, cache)
    return found.model_copy(update={"top1": plain | found.top1})


def _training_targets(data: TaskData) -> Tensor:
    return torch.cat([data.train.targets, data.val.targets])


def _majority_class(data: TaskData) -> float:
    """The share of test images whose class is the most frequent in training (the first of ties)."""
    counts = torch.bincount(_training_targets(data))
    return (data.test.targets == counts.argmax()).double().mean().item()


def _kept(data: TaskData, cache: Path) -> Baselines:
    """The raw-pixel baselines from the cache, or computed and, if possible, cached."""
    found = versions()
    made_with = [found[package] for package in ("numpy", "scikit-learn", "torch")]
    key = hashlib.sha256(json.dumps([RULE, data.fingerprint, made_with]).encode()).hexdigest()[:32]
    place = cache / "baselines" / f"{key}.json"
    computed: Baselines | None = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with files.alone(place.with_suffix(".lock"), lambda: None):
            kept = _read(place)
            if kept is not None:
                return kept
            computed = _pixel_baselines(data)
            files.write_whole(place, files.dump_json(computed.model_dump(mode="json")))
    except (OSError, RunFolderError):  # it is only a cache
        pass
    return computed or _pixel_baselines(data)


def _read(place: Path) -> Baselines | None:
    """The cached baselines; None if the file is missing or damaged."""
    try:
        return Baselines.model_validate_json(place.read_bytes())
    except (OSError, ValidationError):
        return None


def _pixel_baselines(data: TaskData) -> Baselines:
    if data.raw_pixels is not None:
        return Baselines(
            top1=_fit(
                data.raw_pixels.trainval,
                _training_targets(data),
                data.raw_pixels.test,
                data.test.targets,
                shorten=False,
            )
        )
    training = len(data.train) + len(data.val)
    seen, unseen = _drawn(training, MOST_TRAINING), _drawn(len(data.test), MOST_TEST)
    targets = _training_targets(data)[seen]
    if len(targets.unique()) < 2:
        return Baselines(top1={})
    first = len(data.train)
    pixels = [
        _small(data.train.images, [place for place in seen if place < first]),
        _small(data.val.images, [place - first for place in seen if place >= first]),
    ]
    reached = _fit(
        np.concatenate([part for part in pixels if len(part)]),
        targets,
        _small(data.test.images, unseen),
        data.test.targets[unseen],
        shorten=True,
    )
    side = min(SIDE, data.test.images[:1].shape[-1])
    return Baselines(
        top1=reached, raw_pixels=RawPixels(size=side, train=len(seen), test=len(unseen))
    )


def _drawn(count: int, most: int) -> list[int]:
    """The sorted indices of all images, or of `most` images drawn at random."""
    if count <= most:
        return list(range(count))
    chosen = torch.randperm(count, generator=generator(0, "data", "raw_pixels", 0))[:most]
    return sorted(chosen.tolist())


def _small(images: Images, places: Sequence[int]) -> Float32[np.ndarray, "M P"]:
    rows = []
    for start in range(0, len(places), AT_ONCE):
        part = places[start : start + AT_ONCE]
        taken = images.take(part) if isinstance(images, StreamedImages) else images[list(part)]
        pixels = taken.float()
        if pixels.shape[-1] > SIDE:
            pixels = interpolate(pixels, size=(SIDE, SIDE), mode="area")
        rows.append(pixels.flatten(1).numpy())
    return np.concatenate(rows) if rows else np.zeros((0, 0), dtype=np.float32)


def _fit(
    pixels: np.ndarray, seen: Tensor, test: np.ndarray, unseen: Tensor, *, shorten: bool
) -> dict[str, float]:
    """The test top-1 of logistic regression and 1-nearest-neighbour on standardised pixels.

    `seen` are the training targets, `unseen` those of test. With `shorten`, logistic regression
    stops after at most 100 iterations instead of 2,000, and works on all principal components of
    the training images: the same problem in another basis, with fewer numbers.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    linear = (
        [PCA(svd_solver="full"), LogisticRegression()]
        if shorten
        else [LogisticRegression(max_iter=2000)]
    )
    models = {
        "logistic_regression": make_pipeline(StandardScaler(), *linear),
        "nearest_neighbour": KNeighborsClassifier(n_neighbors=1),
    }
    # Threads that wait for each other on a busy machine take twenty times as long as one.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # not converged, or as many classes as images: both are intended
        return {
            name: float(np.mean(model.fit(pixels, seen.numpy()).predict(test) == unseen.numpy()))
            for name, model in models.items()
        }
