"""What is reached without a network: on every task, in bounded time, kept by the images."""

import time
from pathlib import Path

import pytest
import torch

from idat_zoo import baselines as module
from idat_zoo.baselines import find_baselines
from idat_zoo.data.task_data import Split, TaskData
from idat_zoo.recipe import Task


def split(targets: torch.Tensor, *, size: int, told: bool = False) -> Split:
    """Noise; where `told`, an image's brightness says its class."""
    source = torch.Generator().manual_seed(len(targets))
    shape = (len(targets), 3, size, size)
    images = torch.randint(64, shape, dtype=torch.uint8, generator=source)
    if told:
        images += (targets.to(torch.uint8) * 60)[:, None, None, None]
    return Split(
        images=images,
        targets=targets,
        index=torch.arange(len(targets)),
        pixels_sha256=str((size, told, len(targets))),
    )


def task_data(
    *, classes: int, train: int, test: int, size: int = 48, told: bool = False
) -> TaskData:
    task = Task(id="own", suite="folder", num_classes=classes, num_test=())
    parts = [split(torch.arange(n) % classes, size=size, told=told) for n in (train, classes, test)]
    return TaskData(task=task, train=parts[0], val=parts[1], test=parts[2])


def test_any_task_stands_beside_chance_the_majority_class_and_raw_pixels(tmp_path: Path) -> None:
    found = find_baselines(task_data(classes=3, train=60, test=30, told=True), tmp_path)
    assert found.top1["chance"] == 1 / 3
    assert found.top1["majority_class"] == 1 / 3
    assert found.top1["logistic_regression"] > 0.9
    assert found.top1["nearest_neighbour"] > 0.9
    assert found.raw_pixels == module.RawPixels(size=32, train=63, test=30)


def test_the_majority_class_is_that_of_the_training_images(tmp_path: Path) -> None:
    data = TaskData(
        task=Task(id="own", suite="folder", num_classes=3, num_test=()),
        train=split(torch.tensor([0, 1, 1]), size=8),
        val=split(torch.tensor([1, 2]), size=8),
        test=split(torch.tensor([0, 0, 0, 1]), size=8),
    )
    assert find_baselines(data, tmp_path).top1["majority_class"] == 0.25


def test_what_was_computed_once_is_kept_and_a_damaged_file_is_computed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = task_data(classes=3, train=60, test=30, told=True)
    first = find_baselines(data, tmp_path)
    (kept,) = tmp_path.rglob("*.json")
    kept.write_text("{")
    assert find_baselines(data, tmp_path) == first
    monkeypatch.setattr(module, "_pixel_baselines", None)
    assert find_baselines(data, tmp_path) == first


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    data = task_data(classes=3, train=60, test=30, told=True)
    (tmp_path / "file").write_text("")
    assert find_baselines(data, tmp_path / "file") == find_baselines(data, tmp_path / "cache")


def test_one_class_to_learn_from_leaves_chance_and_majority(tmp_path: Path) -> None:
    data = TaskData(
        task=Task(id="own", suite="folder", num_classes=2, num_test=()),
        train=split(torch.zeros(4, dtype=torch.int64), size=8),
        val=split(torch.zeros(0, dtype=torch.int64), size=8),
        test=split(torch.tensor([0, 1]), size=8),
    )
    assert find_baselines(data, tmp_path).top1 == {"chance": 0.5, "majority_class": 0.5}


@pytest.mark.slow
def test_four_hundred_classes_and_fifty_thousand_test_images_take_under_ten_seconds(
    tmp_path: Path,
) -> None:
    data = task_data(classes=397, train=2000, test=50_000, size=32)
    started = time.process_time()
    found = find_baselines(data, tmp_path)
    assert time.process_time() - started < 10  # CPU seconds: other processes do not count
    assert found.raw_pixels == module.RawPixels(size=32, train=1000, test=5000)
    again = find_baselines(data, tmp_path / "another")
    assert again == found
