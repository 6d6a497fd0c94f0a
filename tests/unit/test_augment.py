"""Augmentation: what each kind may do to an image, and that its draws are counted."""

from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import DIGITS, TOY_PAIR, learner_of, toy_recipe
from idat_zoo.data.load import load_task
from idat_zoo.engine.augment import augment
from idat_zoo.engine.train import Trainer
from idat_zoo.errors import RecipeError

KINDS = ("crop", "flip", "randaugment")


@pytest.fixture(scope="module")
def images() -> Tensor:
    source = torch.Generator().manual_seed(0)
    return torch.randint(256, (40, 3, 16, 16), generator=source, dtype=torch.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_and_steps_give_equal_images_and_others_do_not(
    kind: str, images: Tensor
) -> None:
    once = augment(images, (kind,), seed=3, step=5)
    assert once.shape == images.shape
    assert once.dtype == torch.uint8
    assert once.equal(augment(images, (kind,), seed=3, step=5))
    assert not once.equal(augment(images, (kind,), seed=3, step=6))
    assert not once.equal(augment(images, (kind,), seed=4, step=5))
    assert not once.equal(images)


def test_a_flip_turns_about_half_of_the_images_and_nothing_else(images: Tensor) -> None:
    flipped = augment(images, ("flip",), seed=0, step=0)
    turned = [new.equal(old.flip(-1)) for new, old in zip(flipped, images, strict=True)]
    kept = [new.equal(old) for new, old in zip(flipped, images, strict=True)]
    assert all(a != b for a, b in zip(turned, kept, strict=True))
    assert 10 <= sum(turned) <= 30


def test_a_crop_shows_a_part_of_its_own_image() -> None:
    ramps = torch.arange(16, dtype=torch.uint8).expand(30, 3, 16, 16) * 16
    for image in augment(ramps, ("crop",), seed=0, step=0).float():
        rows = image[0]
        assert rows.std(0).max() < 2  # every column is still of one brightness
        assert rows[0].diff().min() >= 0  # from dark to bright
        assert rows.max() - rows.min() < 240  # not all of it


def test_each_image_is_changed_for_itself(images: Tensor) -> None:
    same = images[:1].expand(20, -1, -1, -1)
    changed = augment(same, KINDS, seed=0, step=0)
    assert len({image.numpy().tobytes() for image in changed}) > 10


def test_the_global_generator_is_neither_read_nor_moved(images: Tensor) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = augment(images, KINDS, seed=0, step=0)
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(2)
    assert augment(images, KINDS, seed=0, step=0).equal(first)


def test_teacher_and_student_see_the_same_changed_images(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_task(DIGITS, img_size=16).val
    seen: dict[str, list[Tensor]] = {"student": [], "teacher": []}
    learner = learner_of(toy_recipe(augmentation=("crop", "flip")), data)
    for role, network in learner.pair.roles():
        outputs = network.outputs

        def noting(start: Tensor, *rest: Any, role: str = role, outputs: Any = outputs) -> Any:
            seen[role].append(start.clone())
            return outputs(start, *rest)

        monkeypatch.setattr(network, "outputs", noting)
    Trainer([learner]).train_epoch(0)
    assert len(seen["student"]) == 3
    for student, teacher in zip(seen["student"], seen["teacher"], strict=True):
        assert student.equal(teacher)
    originals = {image.numpy().tobytes() for image in data.held}
    unchanged = sum(image.numpy().tobytes() in originals for image in seen["student"][0])
    assert unchanged < 10


def test_unlike_input_sizes_cannot_be_augmented_alike() -> None:
    small = TOY_PAIR.student.model_copy(update={"img_size": 32})
    pair = TOY_PAIR.model_copy(update={"student": small})
    with pytest.raises(RecipeError, match="augmentation needs a teacher and a student of one"):
        toy_recipe(augmentation=("flip",), pair=pair)


@pytest.mark.cuda
def test_images_on_a_device_stay_there_and_are_changed_alike_twice(images: Tensor) -> None:
    there = images.cuda()
    once = augment(there, KINDS, seed=3, step=5)
    assert once.device == there.device
    assert once.equal(augment(there, KINDS, seed=3, step=5))
