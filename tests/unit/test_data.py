"""Tasks as tensors: the built-in digits, and a fingerprint that tells any two apart."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import DIGITS
from idat_zoo.data.decode import digest_pixels
from idat_zoo.data.load import load_task
from idat_zoo.data.suites import suite_of
from idat_zoo.data.task_data import Split, TaskData
from idat_zoo.errors import DataError, UsageError
from idat_zoo.recipe import Task
from idat_zoo.registry import load_registry

TOYS = Task(id="toys", suite="vtab1k", num_classes=3, num_test=(16,), folder="toys_dir")

# Made with Pillow 13.0.0 on x86-64; its bicubic filter reckons with whole numbers.
DIGITS_48 = "0b256591df6ee5901fca9dc9ab02373a4a21c86f35d68d55fd30aa6a695c478f"


@pytest.fixture(scope="module")
def digits() -> TaskData:
    return load_task(DIGITS, img_size=48)


def test_digits_have_the_promised_sizes(digits: TaskData) -> None:
    assert [len(split) for split in (digits.train, digits.val, digits.test)] == [800, 200, 797]
    assert digits.test.held.shape == (797, 3, 48, 48)
    assert digits.test.held.dtype == torch.uint8
    assert len(digits.trainval) == 1000
    assert digits.counts() == {
        "train": 800,
        "val": 200,
        "test": 797,
        "unreadable": 0,
        "test_in_training": 0,
    }


def test_no_digit_is_in_two_splits_and_none_is_lost(digits: TaskData) -> None:
    index = torch.cat([s.index for s in (digits.train, digits.val, digits.test)])
    assert index.sort().values.equal(torch.arange(1797))


def test_every_split_of_digits_is_stratified(digits: TaskData) -> None:
    everything = torch.cat([digits.trainval.targets, digits.test.targets])
    shares = everything.bincount() / 1797
    for split in (digits.train, digits.val, digits.test):
        counts = split.targets.bincount(minlength=10)
        assert (counts - shares * len(split)).abs().max() <= 1.5


def test_images_labels_and_raw_pixels_of_digits_belong_together(digits: TaskData) -> None:
    from sklearn.datasets import load_digits

    source = load_digits()
    assert digits.raw_pixels is not None
    for split, raw in (
        (digits.trainval, digits.raw_pixels.trainval),
        (digits.test, digits.raw_pixels.test),
    ):
        index = split.index.numpy()
        assert np.array_equal(source.target[index], split.targets.numpy())
        assert np.array_equal(source.data[index], raw)
        small = torch.nn.functional.avg_pool2d(split.held[:, 0].float(), 6).flatten(1)
        wanted = torch.from_numpy(raw).float() * 255 / 16
        correlation = torch.corrcoef(torch.stack([small.flatten(), wanted.flatten()]))[0, 1]
        assert correlation > 0.98
    assert digits.test.held[:, 0].equal(digits.test.held[:, 2])


def test_digits_and_their_splits_are_scikit_learns(digits: TaskData) -> None:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    source = load_digits()
    trainval, test = train_test_split(
        np.arange(1797), train_size=1000, stratify=source.target, random_state=0
    )
    train, val = train_test_split(
        trainval, train_size=800, stratify=source.target[trainval], random_state=0
    )
    for split, index in ((digits.train, train), (digits.val, val), (digits.test, test)):
        assert np.array_equal(split.index.numpy(), index)
        assert np.array_equal(split.targets.numpy(), source.target[index])
    assert digits.raw_pixels is not None
    both = np.concatenate([train, val])
    for raw, index in ((digits.raw_pixels.trainval, both), (digits.raw_pixels.test, test)):
        assert raw.dtype == source.data.dtype
        assert np.array_equal(raw, source.data[index])


def test_digits_at_their_own_size_are_their_grey_levels() -> None:
    data = load_task(DIGITS, img_size=8)
    assert data.raw_pixels is not None
    levels = np.rint(data.raw_pixels.test * (255 / 16)).reshape(-1, 8, 8)
    assert np.array_equal(data.test.held[:, 0].numpy(), levels)


def test_drawn_tasks_have_the_promised_sizes_and_their_pixels_in_order() -> None:
    task = load_registry().tasks["sprites_loc"]
    data = load_task(task, img_size=64)
    assert [len(split) for split in (data.train, data.val, data.test)] == [800, 200, 1000]
    assert torch.cat([data.trainval.index, data.test.index]).equal(torch.arange(2000))
    assert data.raw_pixels is not None
    raw = torch.from_numpy(data.raw_pixels.test).reshape(1000, 64, 64, 3).permute(0, 3, 1, 2)
    assert raw.equal(data.test.held.float())


def test_classes_of_built_in_tasks_are_named_where_they_are_more_than_a_number(
    digits: TaskData,
) -> None:
    tasks = load_registry().tasks
    count = load_task(tasks["count"], img_size=8).task
    assert count.class_names == tuple(map(str, range(3, 11)))
    textures = load_task(tasks["textures"], img_size=8).task
    assert textures.class_names[:2] == ("stripes", "checks")
    assert len(textures.class_names) == textures.num_classes
    assert digits.task.class_names == ()


# Fingerprints


def test_the_fingerprint_of_digits_is_pinned(digits: TaskData) -> None:
    assert digits.fingerprint == DIGITS_48
    assert load_task(DIGITS, img_size=16).fingerprint != DIGITS_48


def part_of(split: Split, places: torch.Tensor) -> Split:
    images = split.held[places]
    return Split(
        images=images,
        targets=split.targets[places],
        index=split.index[places],
        pixels_sha256=digest_pixels(images),
    )


def one_pixel(split: Split) -> Split:
    images = split.held.clone()
    images[3, 1, 5, 5] ^= 1
    return replace(split, images=images, pixels_sha256=digest_pixels(images))


def one_label(split: Split) -> Split:
    targets = split.targets.clone()
    targets[3] = (targets[3] + 1) % 10
    return replace(split, targets=targets)


def another_order(split: Split) -> Split:
    order = torch.arange(len(split))
    order[[0, 1]] = order[[1, 0]]
    return part_of(split, order)


def one_image_less(split: Split) -> Split:
    return part_of(split, torch.arange(len(split) - 1))


@pytest.mark.parametrize("part", ["train", "val", "test"])
@pytest.mark.parametrize("change", [one_pixel, one_label, another_order, one_image_less])
def test_one_pixel_label_place_or_image_moves_the_fingerprint(
    change: Callable[[Split], Split], part: str, digits: TaskData
) -> None:
    changed = replace(digits, **{part: change(getattr(digits, part))})
    assert changed.fingerprint != digits.fingerprint


def test_the_same_images_split_elsewhere_have_another_fingerprint(digits: TaskData) -> None:
    everything = digits.trainval
    first, second = torch.arange(1000).split([700, 300])
    moved = replace(digits, train=part_of(everything, first), val=part_of(everything, second))
    assert moved.trainval.held.equal(everything.held)
    assert moved.fingerprint != digits.fingerprint


# What is not there


def test_a_task_that_only_says_it_is_built_in_is_refused() -> None:
    with pytest.raises(UsageError, match="'letters' is said to be in the mini suite"):
        load_task(DIGITS.model_copy(update={"id": "letters"}), img_size=16)


def test_what_is_missing_is_told_before_anything_is_read(tmp_path: Path) -> None:
    assert suite_of(DIGITS).missing(DIGITS, None) == ""
    assert "no --data-dir was given" in suite_of(TOYS).missing(TOYS, None)
    told = suite_of(TOYS).missing(TOYS, tmp_path)
    assert told.count(str(tmp_path / "toys_dir")) == 3
    assert "train800.txt" in told
    for place in (None, tmp_path):
        with pytest.raises(DataError, match=r"^missing: images of task 'toys'"):
            load_task(TOYS, img_size=8, data_dir=place)
