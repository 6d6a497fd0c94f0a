"""What trained adapters say of images: classes and probabilities, many adapters in one pass.

Shape letters: B batch, C channels, H W image, K classes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from idat_zoo.checkpoint.opened import Opened, open_checkpoints
from idat_zoo.data.decode import decode_bytes
from idat_zoo.data.reading import Reading
from idat_zoo.data.walk import walk
from idat_zoo.errors import DataError
from idat_zoo.pool import AdapterPool

IMAGES_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image file's bytes, and what people call it. `fault` says why there are none."""

    name: str
    content: bytes = b""
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """One class with its probability. `name` is empty where the task's source has none."""

    number: int
    name: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The most probable classes of an image by one checkpoint; none where it cannot be read."""

    image: str
    checkpoint: str
    task: str
    ranked: tuple[Ranked, ...] = ()
    fault: str = ""


def find_adapters(references: Iterable[str]) -> dict[str, Opened]:
    """The checkpoints at and below references, each by its reference and its path below that.

    Raises: what `open_checkpoints` raises.
    """
    return {
        reference if below == "." else f"{reference.rstrip('/')}/{below}": opened
        for reference in references
        for below, opened in open_checkpoints(reference).items()
    }


class Predictor:
    """Checkpoints by name that stand ready; those of one backbone see an image in one pass.

    Raises: what `load_checkpoint` raises; UsageError for no such device.
    """

    def __init__(self, adapters: Mapping[str, Opened], *, device: str = "auto") -> None:
        self.configs = {name: opened.config for name, opened in adapters.items()}
        self._pools: dict[str, AdapterPool] = {}
        for name, config in self.configs.items():
            if config.backbone_sha256 not in self._pools:
                self._pools[config.backbone_sha256] = AdapterPool(device=device)
            self._pools[config.backbone_sha256].add(name, adapters[name])

    def predict(
        self, pictures: Iterable[Picture], *, top: int = 5, reading: Reading | None = None
    ) -> Iterator[Prediction]:
        """Each picture's predictions, by every checkpoint, in the order of both.

        `top` classes at most, the most probable first; of equals the lower number.
        """
        reading, waiting = reading or Reading(), iter(pictures)
        while batch := list(islice(waiting, IMAGES_AT_ONCE)):
            yield from self._predict_batch(batch, top, reading)

    def _predict_batch(
        self, batch: Sequence[Picture], top: int, reading: Reading
    ) -> Iterator[Prediction]:
        found: dict[tuple[int, str], Prediction] = {}
        for pool in self._pools.values():
            names = pool.names()
            size = self.configs[names[0]].backbone.img_size
            decoded, faults = decode_bytes([one.content for one in batch], size, reading)
            readable = [k for k, one in enumerate(batch) if not (one.fault or k in faults)]
            asked = [(k, name) for k in readable for name in names]
            logits: list[Tensor] = []
            if asked:
                rows = decoded[[k for k, _ in asked]]
                logits = pool.predict(rows, [name for _, name in asked])
            for (k, name), own in zip(asked, logits, strict=True):
                found[k, name] = self._rank(batch[k].name, name, own, top)
            for k in set(range(len(batch))) - set(readable):
                for name in names:
                    fault = batch[k].fault or faults[k]
                    found[k, name] = Prediction(
                        image=batch[k].name,
                        checkpoint=name,
                        task=self.configs[name].recipe.task.id,
                        fault=fault,
                    )
        for k in range(len(batch)):
            for name in self.configs:
                yield found[k, name]

    def _rank(self, image: str, checkpoint: str, logits: Tensor, top: int) -> Prediction:
        task = self.configs[checkpoint].recipe.task
        probabilities = torch.softmax(logits, dim=0)
        order = torch.argsort(probabilities, descending=True, stable=True)[:top].tolist()
        return Prediction(
            image=image,
            checkpoint=checkpoint,
            task=task.id,
            ranked=tuple(
                Ranked(
                    number=number,
                    name=task.class_names[number] if task.class_names else "",
                    probability=probabilities[number].item(),
                )
                for number in order
            ),
        )


def find_pictures(places: Iterable[Path]) -> list[Path]:
    """Image files as they are given, and those in folders and below, as training finds them.

    A folder below that cannot be walked is among them: `open_picture` says why.

    Raises: DataError for a place that is not there, and a folder without images.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            top = walk(place)
            below = [place / name for name in top.image_paths()]
            below += [path for path, _ in top.all_faults()]
            if not below:
                raise DataError(f"there are no images in folder '{place}' or below.")
            found += below
        elif place.exists():
            found.append(place)
        else:
            raise DataError(f"there is no image or folder '{place}'.")
    return found


def open_picture(path: Path) -> Picture:
    """The file's bytes, or why they cannot be had."""
    if path.is_dir():
        why = "is a link to" if path.is_symlink() else "is"
        return Picture(name=str(path), fault=f"{why} a folder that cannot be walked")
    try:
        return Picture(name=str(path), content=path.read_bytes())
    except OSError as error:
        return Picture(name=str(path), fault=f"cannot be read: {error.strerror}")
