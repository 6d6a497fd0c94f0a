"""The predictions of trained adapters on images: classes with their probabilities.

Shape letters: B batch, C channels, H W image, K classes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from idat_zoo.checkpoint.opened import Opened, open_checkpoints
from idat_zoo.data.decode import decode_bytes
from idat_zoo.data.reading import Reading
from idat_zoo.pictures import Picture
from idat_zoo.pool import AdapterPool

IMAGES_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A class and its probability. `number` is its index; `name` is '' if classes have no names."""

    number: int
    name: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The most probable classes of an image by one checkpoint; none if the image cannot be read."""

    image: str
    checkpoint: str
    task: str
    ranked: tuple[Ranked, ...] = ()
    fault: str = ""


def find_adapters(references: Iterable[str]) -> dict[str, Opened]:
    """The checkpoints at and below references, by the reference joined with the path below it.

    Raises: what `open_checkpoints` raises.
    """
    return {
        reference if below == "." else f"{reference.rstrip('/')}/{below}": opened
        for reference in references
        for below, opened in open_checkpoints(reference).items()
    }


class Predictor:
    """Loaded checkpoints by name; those of one backbone share a forward pass.

    Raises: what `load_checkpoint` and `find_device` raise.
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
        """The predictions of every checkpoint for each picture, picture by picture.

        A prediction has at most `top` classes, the most probable first; among equal ones the class
        of the lower index comes first.
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
