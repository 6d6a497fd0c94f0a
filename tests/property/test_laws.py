"""Laws of randomness: draws have keys, and a student does not notice a teacher it does not hear."""

import random
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import DIGITS, FAMILIES, learner_of, toy_recipe
from idat_zoo.data.load import load_task
from idat_zoo.data.task_data import TaskData
from idat_zoo.engine.state import state_of
from idat_zoo.engine.train import Trainer
from idat_zoo.randomness import Draws, generator
from idat_zoo.recipe import Recipe

names = st.text(alphabet="abcdefghij_./ 0123456789", min_size=1, max_size=12)
keys = st.tuples(
    st.integers(0, 2**63), st.sampled_from(["student", "teacher", "pair"]), names, st.integers(0)
)


def numbers(key: tuple[int, str, str, int]) -> list[float]:
    seed, network, stream, step = key
    return Draws(seed, network, step).uniform(stream, 4).tolist()


@given(keys, keys)
def test_draws_are_equal_if_and_only_if_their_keys_are(
    first: tuple[int, str, str, int], second: tuple[int, str, str, int]
) -> None:
    assert (numbers(first) == numbers(second)) == (first == second)
    assert numbers(first) == numbers(first)


@given(st.integers(0, 2**32), st.integers(0, 10**6))
def test_each_part_of_a_key_counts(seed: int, step: int) -> None:
    key = (seed, "student", "order", step)
    others = [
        (seed + 1, "student", "order", step),
        (seed, "teacher", "order", step),
        (seed, "student", "orders", step),
        (seed, "student", "order", step + 1),
    ]
    assert all(numbers(other) != numbers(key) for other in others)


@given(st.lists(keys, min_size=2, max_size=6, unique=True), st.randoms(use_true_random=False))
def test_the_order_of_asking_does_not_matter(
    asked: list[tuple[int, str, str, int]], source: random.Random
) -> None:
    expected = {key: numbers(key) for key in asked}
    source.shuffle(asked)
    assert {key: numbers(key) for key in asked} == expected


def global_states() -> tuple[object, ...]:
    numpy_state = np.random.get_state(legacy=True)
    return (torch.get_rng_state().tolist(), *map(str, numpy_state), random.getstate())


@given(keys)
@settings(max_examples=20)
def test_drawing_neither_reads_nor_moves_the_global_generators(
    key: tuple[int, str, str, int],
) -> None:
    expected = numbers(key)
    torch.manual_seed(7)
    before = global_states()
    assert numbers(key) == expected
    Draws(key[0], key[1], 0).keep("mask", 0.5, 3)
    assert global_states() == before


@given(st.floats(0, 0.9), st.integers(0, 2**32))
@settings(max_examples=25)
def test_masks_are_0_or_what_keeps_the_mean(rate: float, seed: int) -> None:
    mask = Draws(seed, "student", 0).keep("dropout", rate, 4000)
    kept = mask > 0
    torch.testing.assert_close(mask[kept], torch.full_like(mask[kept], 1 / (1 - rate)))
    deviation = (rate * (1 - rate) / 4000) ** 0.5
    assert abs(kept.double().mean().item() - (1 - rate)) <= 6 * deviation + 1e-12


def test_a_generator_takes_more_than_the_low_bits_of_its_key() -> None:
    first = {generator(seed, "student", "head").initial_seed() for seed in range(1000)}
    assert len({seed & 0xFFFFFFFF for seed in first}) > 990


ONE_EPOCH = {"epochs": 1, "warmup_epochs": 0, "precision": "float32"}


@cache
def digits() -> TaskData:
    return load_task(DIGITS, img_size=16)


def trained(recipe: Recipe, seed: int) -> dict[str, torch.Tensor]:
    """The student's trained tensors and moments after one epoch."""
    learner = learner_of(recipe, digits().val, seed=seed)
    trainer = Trainer([learner])
    trainer.train_epoch(0)
    state = state_of(trainer, learner)
    return {name: value for name, value in state.items() if name.startswith("student/")}


settings_of_a_run = st.fixed_dictionaries(
    {
        "lr": st.sampled_from([1e-4, 5e-3, 5e-2]),
        "weight_decay": st.sampled_from([0.0, 5e-2]),
        "drop_path": st.sampled_from([0.0, 0.3]),
        "batch_size": st.sampled_from([16, 64]),
        "options": st.fixed_dictionaries({"dropout": st.sampled_from([0.0, 0.2])}),
    }
)


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(st.sampled_from(FAMILIES), st.integers(0, 2**31), settings_of_a_run)
def test_law_a_teacher_that_is_not_heard_changes_no_bit_of_the_student(
    family: str, seed: int, fields: dict[str, object]
) -> None:
    fields = ONE_EPOCH | fields
    beside = trained(toy_recipe(family, distillation="none", **fields), seed)
    alone = trained(toy_recipe(family, teacher=False, **fields), seed)
    assert beside.keys() == alone.keys()
    assert all(beside[name].equal(alone[name]) for name in alone)


def test_the_law_bites() -> None:
    heard = trained(toy_recipe(**ONE_EPOCH), 0)
    alone = trained(toy_recipe(teacher=False, **ONE_EPOCH), 0)
    assert any(not heard[name].equal(alone[name]) for name in alone)
