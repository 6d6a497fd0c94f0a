"""Images of a Python program's own, decoded once for all worker processes.

Arrays and data sets cannot be sent to another process: a data set may be of any class. Their
decoded pixels can: as open files without a name, which a child inherits and maps into its memory.

Shape letters: N images, S input size.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Int64
from torch import Tensor

from idat_zoo.data.arrays import Arrays
from idat_zoo.data.decode import channels_first
from idat_zoo.data.listing import SPLITS
from idat_zoo.data.pixel_file import map_pixels, nameless_file, write_at
from idat_zoo.data.reading import Listener
from idat_zoo.data.task_data import Split, TaskData
from idat_zoo.recipe import Recipe, Task
from idat_zoo.runs.turn import Terms

WRITTEN = 256
"""The number of images that are written at once."""


@dataclass(frozen=True, kw_only=True)
class _StoredSplit:
    """A split whose pixels are in an open file, uint8 [N, S, S, 3]."""

    file: int
    size: int
    targets: Int64[Tensor, "N"]
    index: Int64[Tensor, "N"]
    pixels_sha256: str

    def load(self) -> Split:
        """The split, with its images memory-mapped."""
        shape = (len(self.targets), self.size, self.size, 3)
        return Split(
            images=channels_first(map_pixels(Path(f"/dev/fd/{self.file}"), shape)),
            targets=self.targets,
            index=self.index,
            pixels_sha256=self.pixels_sha256,
        )


@dataclass(frozen=True, kw_only=True)
class _StoredData:
    """A task's data, its splits stored."""

    task: Task
    splits: dict[str, _StoredSplit]
    test_in_training: int


@dataclass(frozen=True, kw_only=True)
class StoredArrays(Arrays):
    """Arrays that were checked and decoded by the parent process, by input size."""

    stored: dict[int, _StoredData]

    def check_is(self, task: Task) -> None:
        """The parent has checked it."""

    def load(self, task: Task, img_size: int, listener: Listener) -> TaskData:
        """The three splits at an input size."""
        found = self.stored[img_size]
        train, val, test = (found.splits[split].load() for split in ("train", "val", "test"))
        return TaskData(
            task=found.task,
            train=train,
            val=val,
            test=test,
            test_in_training=found.test_in_training,
        )


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The terms with arrays that another process can read, and the open files that they need."""

    terms: Terms
    files: tuple[int, ...] = ()


@contextmanager
def share_arrays(terms: Terms, recipes: Sequence[Recipe]) -> Iterator[Shared]:
    """Decode the caller's images, if there are any, at all input sizes of the recipes.

    Raises: DataError where an image has changed, or the pixels cannot be written.
    """
    inputs = terms.inputs
    if inputs.arrays is None or not recipes:
        yield Shared(terms=terms)
        return
    sizes = {spec.img_size for recipe in recipes for spec in recipe.backbones()}
    files, stored = list[int](), dict[int, _StoredData]()
    with ExitStack() as open_files:
        for size in sorted(sizes):
            data = inputs.arrays.load(recipes[0].task, size, inputs.listener)
            splits = {}
            for split in SPLITS:
                file = open_files.enter_context(nameless_file(f"{data.task.id} {split}"))
                splits[split] = _store(getattr(data, split), size, file)
                files.append(file.fileno())
            stored[size] = _StoredData(
                task=data.task, splits=splits, test_in_training=data.test_in_training
            )
        arrays = StoredArrays(
            held={},
            class_names=inputs.arrays.class_names,
            num_classes=inputs.arrays.num_classes,
            stored=stored,
        )
        yield Shared(
            terms=replace(terms, inputs=replace(inputs, arrays=arrays)), files=tuple(files)
        )


def _store(split: Split, size: int, file: "tempfile._TemporaryFileWrapper[bytes]") -> _StoredSplit:
    offset = 0
    for start in range(0, len(split), WRITTEN):
        pixels = split.images[start : start + WRITTEN].permute(0, 2, 3, 1).contiguous().numpy()
        write_at(file.fileno(), pixels.data, offset)
        offset += pixels.nbytes
    return _StoredSplit(
        file=file.fileno(),
        size=size,
        targets=split.targets,
        index=split.index,
        pixels_sha256=split.pixels_sha256,
    )
