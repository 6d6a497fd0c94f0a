"""Images of several tensors as one sequence: equal to their join, and read where they lie."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import toy_pair, toy_recipe
from idat_zoo.data.decode import channels_first
from idat_zoo.data.pixel_file import map_pixels
from idat_zoo.data.task_data import Split, TaskData
from idat_zoo.engine.learner import Learner
from idat_zoo.joined_images import JoinedImages
from idat_zoo.recipe import Task
from idat_zoo.runs.loaded import LoadedRun
from idat_zoo.runs.plan import Planned

STATUS = Path("/proc/self/status")
SIZE, LARGE = 224, 1400  # 211 MB
MOST_GROWTH = 40e6


def pixels(*counts: int) -> list[Tensor]:
    """Images with channels last in memory, as the cache has them, and one part without."""
    source = torch.Generator().manual_seed(0)
    parts = [torch.randint(256, (n, 6, 6, 3), dtype=torch.uint8, generator=source) for n in counts]
    return [part.permute(0, 3, 1, 2) for part in parts[:-1]] + [
        parts[-1].permute(0, 3, 1, 2).contiguous()
    ]


@pytest.mark.parametrize("counts", [(7,), (5, 3), (4, 0, 6), (0, 2), (3, 0)])
def test_batches_are_those_of_the_join_and_contiguous(counts: tuple[int, ...]) -> None:
    parts = pixels(*counts)
    joined, whole = JoinedImages(parts), torch.cat(parts).contiguous()
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(1))
    assert len(joined) == len(whole)
    for rows in (order, order[:2], order[:0], order.tolist(), slice(1, None), slice(None)):
        assert joined[rows].equal(whole[rows])
        assert joined[rows].stride() == whole[rows].stride()
    assert [batch.tolist() for batch in joined.split(3)] == [b.tolist() for b in whole.split(3)]


def test_another_device_has_all_images_in_one_tensor() -> None:
    parts = pixels(300, 4)
    assert JoinedImages(parts).to(torch.device("cpu")).__class__ is JoinedImages
    there = JoinedImages(parts).to(torch.device("meta"))
    assert isinstance(there, Tensor)
    assert there.shape == (304, 3, 6, 6)
    assert there.is_contiguous()


def mapped(path: Path, count: int) -> Split:
    """A split whose pixels are in a file; the file takes no space on a disk that has holes."""
    path.touch()
    with path.open("r+b") as file:
        file.truncate(count * SIZE * SIZE * 3)
    images = channels_first(map_pixels(path, (count, SIZE, SIZE, 3)))
    targets = torch.arange(count) % 10
    return Split(images=images, targets=targets, index=targets, pixels_sha256="")


def anonymous() -> float:
    """The anonymous part of this process's resident memory, in bytes."""
    lines = STATUS.read_text().splitlines()
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def data_of(folder: Path, task: Task) -> TaskData:
    train, val = mapped(folder / "train", LARGE), mapped(folder / "val", LARGE // 10)
    return TaskData(task=task, train=train, val=val, test=val)


def test_train_and_val_are_joined_where_they_lie(tmp_path: Path) -> None:
    data = data_of(tmp_path, toy_recipe().task)
    places = [part.data_ptr() for part in data.trainval.joined.parts]
    assert places == [data.train.images.data_ptr(), data.val.images.data_ptr()]
    assert data.train.joined.parts[0].data_ptr() == places[0]
    assert len(data.trainval) == LARGE + LARGE // 10


@pytest.mark.skipif(not STATUS.exists(), reason="/proc is Linux's")
@pytest.mark.parametrize("split", ["train", "trainval"])
def test_a_training_copies_no_more_of_mapped_images_than_its_batches(
    split: str, tmp_path: Path
) -> None:
    recipe = toy_recipe(precision="float32", batch_size=16)
    data = data_of(tmp_path, recipe.task)
    planned = Planned(
        recipe=recipe, seed=0, out=tmp_path, folder=tmp_path, finished=False, missing=()
    )
    pair = toy_pair(recipe)
    before = anonymous()
    run = LoadedRun(
        planned=planned,
        views={"student": data, "teacher": data},
        still_ours=lambda: None,
        cache=tmp_path,
    )
    training = run.training(split)
    learner = Learner(pair, training.images, training.targets, recipe, seed=0)
    assert learner.starts["student"] is learner.starts["teacher"]
    for batch in learner.order(0).split(learner.batch_size):
        assert isinstance(learner.start("student", 0, batch), Tensor)
    assert anonymous() - before < MOST_GROWTH
