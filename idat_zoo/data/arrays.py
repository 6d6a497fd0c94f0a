"""Images and labels in memory, passed as `run(recipe, data={"train": …, "test": …})`.

Each split is one of

    (images, labels)     arrays or tensors: uint8 [N, 3, H, W] or [N, H, W, 3], and integers [N]
    a data set           torch's or any other with a length, and (image, label) at each index;
                         an image is PIL's, or uint8 [3, H, W] or [H, W, 3]

`val` may be left out: a tenth of each class of train is then val, as in folders. `class_names` has
the names of classes 0, 1, …; without it, the largest label gives the number of classes.

Images are resized in the same way as image files. The task's id is `arrays-` with 8 digits of a
hash over all original pixels and labels, equal for arrays and a data set of the same images.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from idat_zoo.data.decode import channels_first
from idat_zoo.data.folder import VAL_PERCENT, drawn
from idat_zoo.data.image_file import UnreadableImageError, as_rgb, resized
from idat_zoo.data.listing import SPLITS, Listing, Rows, describe_classes, refuse
from idat_zoo.data.pixel_file import map_pixels, nameless_file, write_at
from idat_zoo.data.reading import Listener
from idat_zoo.data.task_data import Split, TaskData
from idat_zoo.errors import DataError, InputError, UnknownNameError, UsageError
from idat_zoo.recipe import Task
from idat_zoo.values import MOST_CLASSES

ARRAYS = "arrays"
CLASS_NAMES = "class_names"
HOW = 'data = {"train": (images, labels), "test": (images, labels)}, or torch data sets'
FLOATS = "hand over the pixels 0 … 255; networks normalise them by themselves"

Data = Mapping[str, Any]
"""The mapping that a caller passes: splits by name, and perhaps `class_names`."""
Picture = Callable[[int], Image.Image]
"""A function from an index to the image. Raises: UnreadableImageError."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """One split of the caller's: access to its images, its labels, and a hash of each image."""

    picture: Picture = field(repr=False)
    targets: list[int]
    hashes: list[bytes] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """All splits of the caller's, checked. `num_classes` may exceed the classes that occur."""

    held: Mapping[str, Held]
    class_names: tuple[str, ...]
    num_classes: int

    @property
    def task(self) -> Task:
        """The task that the images make."""
        return Task(
            id=self._identify(),
            suite=ARRAYS,
            num_classes=self.num_classes,
            num_train=(),
            num_val=(),
            num_test=(),
            class_names=self.class_names,
        )

    def check_is(self, task: Task) -> None:
        """Check that a recipe's task was made of the same images and labels.

        Raises: UsageError for a task of another suite; DataError for other images or labels.
        """
        if task.suite != ARRAYS:
            raise UsageError(
                f"data are handed over, but the recipe is of task '{task.id}'.",
                hint='get_recipe("arrays", adapter, data=…) is of the same data',
            )
        found = self._identify()
        if found != task.id:
            raise refuse(
                task.id,
                [f"these are other images or labels: they are '{found}'"],
                hint="A data set must give the same image each time: without random transforms.",
            )

    def load(self, task: Task, img_size: int, listener: Listener) -> TaskData:
        """The three splits at an input size. Raises: DataError where an image has changed."""
        places = self._places()
        decoded = {
            split: self._decode(split, places[split], img_size, listener) for split in SPLITS
        }
        learnt = {self.held[of].hashes[i] for split in SPLITS[:2] for of, i in places[split]}
        data = TaskData(
            task=task.with_names(self.class_names),
            train=decoded["train"],
            val=decoded["val"],
            test=decoded["test"],
            test_in_training=sum(self.held[of].hashes[i] in learnt for of, i in places["test"]),
        )
        for note in self._notes(data):
            listener.note(f"{task.id}: {note}")
        return data

    def _identify(self) -> str:
        digest = hashlib.sha256()
        for split, held in sorted(self.held.items()):
            digest.update(f"{split} {len(held.targets)}".encode())
            digest.update(b"".join(held.hashes))
            digest.update(np.asarray(held.targets, dtype="<i8").tobytes())
        return f"{ARRAYS}-{digest.hexdigest()[:8]}"

    def _places(self) -> dict[str, list[tuple[str, int]]]:
        """Split -> the caller's split and the index in it, for each image of the split."""
        places = {
            split: [(split, i) for i in range(len(h.targets))] for split, h in self.held.items()
        }
        if "val" in places:
            return places
        classes: dict[int, list[str]] = defaultdict(list)
        for i, target in enumerate(self.held["train"].targets):
            classes[target].append(str(i))
        val = {int(name) for name in drawn(classes.values(), VAL_PERCENT)}
        train = places["train"]
        places["train"] = [place for place in train if place[1] not in val]
        places["val"] = [place for place in train if place[1] in val]
        return places

    def _decode(
        self, split: str, places: Sequence[tuple[str, int]], size: int, listener: Listener
    ) -> Split:
        what, digest = f"{ARRAYS} {split}", hashlib.sha256()
        with nameless_file(what) as file:
            for done, (of, i) in enumerate(places):
                pixels = resized(self._picture(of, i), size)
                digest.update(hashlib.sha256(pixels.data).digest())
                write_at(file.fileno(), pixels.data, done * pixels.nbytes)
                listener.decoding(what, done + 1, len(places))
            images = channels_first(map_pixels(Path(file.name), (len(places), size, size, 3)))
        return Split(
            images=images,
            targets=torch.tensor([self.held[of].targets[i] for of, i in places], dtype=torch.int64),
            index=torch.tensor([i for _, i in places], dtype=torch.int64),
            pixels_sha256=digest.hexdigest(),
        )

    def _picture(self, split: str, i: int) -> Image.Image:
        try:
            picture = self.held[split].picture(i)
        except UnreadableImageError as error:
            raise DataError(f"image {i} of {split}: {error}") from None
        if hash_of(picture) != self.held[split].hashes[i]:
            raise DataError(
                f"image {i} of {split} is another one than it was just now.",
                hint="A data set must give the same image each time: without random transforms.",
            )
        return picture

    def _notes(self, data: TaskData) -> list[str]:
        """Sentences on what may make results on this data misleading."""
        rows = {
            name: Rows(source=name, names=[""] * len(split), targets=split.targets.tolist())
            for name, split in zip(SPLITS, (data.train, data.val, data.test), strict=True)
        }
        listing = Listing(root=Path(), splits=rows, class_names=self.class_names)
        notes = [] if "val" in self.held else [f"{VAL_PERCENT} % of each class of train are val"]
        if data.test_in_training:
            notes.append(
                f"{data.test_in_training:,} of {len(data.test):,} test images are among those that "
                "are learnt from"
            )
        return [*notes, *describe_classes(listing, data.task.num_classes)]


def hash_of(picture: Image.Image) -> bytes:
    """SHA-256 over an image's size and pixels."""
    return hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).digest()


def read_arrays(data: Data) -> Arrays:
    """Check what a caller passes as `data`, and hash every image.

    Raises: InputError for anything but a mapping of splits; DataError with every fault.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"data are a mapping of splits; got {type(data).__name__}.", hint=HOW)
    faults: list[str] = []
    for name in data:
        if name not in (*SPLITS, CLASS_NAMES):
            known = UnknownNameError("split", str(name), [*SPLITS, CLASS_NAMES])
            faults.append(f"{known.message} {known.hint}".rstrip())
    faults += [f"{split}: is missing" for split in ("train", "test") if split not in data]
    names = _read_names(data.get(CLASS_NAMES), faults)
    held: dict[str, Held] = {}
    for split in (split for split in SPLITS if split in data):
        given, own = data[split], list[str]()
        read = _read_pair if isinstance(given, tuple) and len(given) == 2 else _read_dataset
        found = read(split, given, own)
        if found is not None:
            own += _out_of_range(split, found.targets, len(names) or MOST_CLASSES)
            held[split] = found
        faults += own
    classes = {target for one in held.values() for target in one.targets}
    if not faults and len(classes) < 2:
        faults.append(f"all images are of one class, {classes.pop()}; expected two or more")
    if faults:
        raise refuse(ARRAYS, faults, hint=f"Expected: {HOW}.")
    return Arrays(held=held, class_names=names, num_classes=len(names) or max(classes) + 1)


def _read_names(given: Any, faults: list[str]) -> tuple[str, ...]:
    if given is None:
        return ()
    names = () if isinstance(given, str) or not isinstance(given, Sequence) else tuple(given)
    if len(names) < 2 or not all(isinstance(name, str) for name in names):
        faults.append(f"{CLASS_NAMES}: expected two strings or more, got {given!r:.100}")
        return ()
    if len(set(names)) < len(names):
        faults.append(f"{CLASS_NAMES}: two classes have one name")
    return names


def _out_of_range(split: str, targets: Sequence[int], most: int) -> list[str]:
    wrong = [i for i, target in enumerate(targets) if not 0 <= target < most]
    if not wrong:
        return []
    return [
        f"{split}: {len(wrong):,} labels are not from 0 to {most - 1}, the first is "
        f"{targets[wrong[0]]} of image {wrong[0]}"
    ]


def _read_pair(split: str, pair: tuple[Any, Any], faults: list[str]) -> Held | None:
    """A split that is a pair of images and labels; None, and faults, where it has no labels."""
    images, labels = pair
    pixels, fault = _pixels(images, ndim=4)
    if pixels is None:
        faults.append(f"{split}: images: {fault}")
    numbers = _as_array(np.asarray(labels) if isinstance(labels, list | tuple) else labels)
    if numbers is None or numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
        faults.append(f"{split}: labels: expected integers [N], got {_told(labels)}")
        return None
    rows = np.zeros((0, 1, 1, 3), dtype=np.uint8) if pixels is None else pixels
    if pixels is not None and len(rows) != len(numbers):
        faults.append(f"{split}: {len(rows):,} images and {len(numbers):,} labels")
    elif not len(numbers):
        faults.append(f"{split}: no images")

    def picture(i: int) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(rows[i]))

    hashes = [hash_of(picture(i)) for i in range(len(rows))]
    return Held(picture=picture, targets=numbers.tolist(), hashes=hashes)


def _read_dataset(split: str, given: Any, faults: list[str]) -> Held | None:
    if not hasattr(given, "__len__") or not hasattr(given, "__getitem__"):
        faults.append(
            f"{split}: expected (images, labels), or a data set with a length and numbered images; "
            f"got {type(given).__name__}"
        )
        return None
    targets, hashes = [], []
    for i in range(len(given)):
        try:
            image, target = _item(given, i)
        except UnreadableImageError as error:
            faults.append(f"{split}: {i}: {error}")
        else:
            targets.append(target)
            hashes.append(hash_of(image))
    if not len(given):
        faults.append(f"{split}: no images")
    return Held(picture=lambda i: _item(given, i)[0], targets=targets, hashes=hashes)


def _item(given: Any, i: int) -> tuple[Image.Image, int]:
    """The image and label at an index of a data set. Raises: UnreadableImageError."""
    try:
        item = given[i]
    except OSError as error:  # of a file that is missing, or no image
        raise UnreadableImageError(f"cannot be read: {error}") from None
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise UnreadableImageError(f"expected (image, label), got {_told(item)}")
    image, label = item
    number = _as_array(label)
    if isinstance(label, int) and not isinstance(label, bool):
        number = np.asarray(label)
    if number is None or number.size != 1 or not np.issubdtype(number.dtype, np.integer):
        raise UnreadableImageError(f"expected an integer label, got {_told(label)}")
    if isinstance(image, Image.Image):
        try:
            return as_rgb(image), int(number.item())
        except OSError as error:
            raise UnreadableImageError(f"cannot be read: {error}") from None
    pixels, fault = _pixels(image, ndim=3)
    if pixels is None:
        raise UnreadableImageError(fault)
    return Image.fromarray(np.ascontiguousarray(pixels)), int(number.item())


def _pixels(given: Any, *, ndim: int) -> tuple[UInt8[np.ndarray, "*N H W 3"] | None, str]:
    """Images with channels last and '', or None and the fault."""
    letters = "N, " if ndim == 4 else ""
    expected = f"expected uint8 [{letters}3, H, W] or [{letters}H, W, 3]"
    array = _as_array(given)
    if array is None:
        return None, f"{expected}{' or a PIL image' if ndim == 3 else ''}, got {_told(given)}"
    if array.dtype != np.uint8:
        return None, f"{expected}, got {_told(given)}; {FLOATS}"
    if array.ndim != ndim or 0 in array.shape[-3:] or 3 not in (array.shape[-3], array.shape[-1]):
        grey = " (grey: repeat it three times)" if 1 in array.shape[1:] else ""
        return None, f"{expected}, got {_told(given)}{grey}"
    if array.shape[-3] == array.shape[-1]:
        return None, f"{expected}, got {_told(given)}, which may be either"
    return (array if array.shape[-1] == 3 else np.moveaxis(array, -3, -1)), ""


def _as_array(given: Any) -> np.ndarray | None:
    """An array's or a tensor's numbers, bf16 as float32; None for any other type."""
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        numbers: np.ndarray = (given.float() if given.is_floating_point() else given).numpy()
        return numbers
    return np.asarray(given) if isinstance(given, np.ndarray | np.generic) else None


def _told(given: Any) -> str:
    """A value as messages describe it: dtype and shape, or the name of its type."""
    if hasattr(given, "dtype") and hasattr(given, "shape"):
        return f"{given.dtype} {list(given.shape)}".removeprefix("torch.")
    return repr(given) if isinstance(given, bool | float) else type(given).__name__
