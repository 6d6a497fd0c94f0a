"""The sign-flip test, against all choices of signs, a closed form and simulation."""

import itertools

import numpy as np
import pytest
import scipy.stats

from idat_zoo.report import sign_flips
from idat_zoo.report.sign_flips import sign_flip_p


def drawn(seed: int, *, tasks: int, seeds: int, gain: float = 0.01) -> list[list[float]]:
    source = np.random.default_rng(seed)
    return [list(map(float, source.normal(gain, 0.02, seeds))) for _ in range(tasks)]


def counted(values: np.ndarray, weights: np.ndarray) -> float:
    """The share of all choices of signs with a mean as far from 0."""
    signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
    means = np.abs(signs @ (values * weights))
    return float((means >= means[0] - 1e-12).mean())


@pytest.mark.parametrize("seed", range(5))
def test_it_counts_all_signs_of_tasks(seed: int) -> None:
    gains = drawn(seed, tasks=7, seeds=3)
    expected = counted(np.array([np.mean(own) for own in gains]), np.full(7, 1 / 7))
    assert sign_flip_p(gains, unit="tasks") == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_it_counts_all_signs_of_seeds_also_of_tasks_with_fewer(seed: int) -> None:
    gains = [own[: 1 + place] for place, own in enumerate(drawn(seed, tasks=4, seeds=4))]
    values = np.concatenate([np.array(own) for own in gains])
    weights = np.concatenate([np.full(len(own), 1 / len(own) / 4) for own in gains])
    assert sign_flip_p(gains, unit="seeds") == pytest.approx(counted(values, weights))


def test_gains_of_one_sign_have_the_smallest_p_there_is() -> None:
    gains = [[0.01 * (1 + task)] for task in range(6)]
    assert sign_flip_p(gains, unit="tasks") == 2 / 2**6
    assert sign_flip_p([[-own[0]] for own in gains], unit="tasks") == 2 / 2**6


def test_gains_of_one_size_have_the_p_of_a_sign_test() -> None:
    gains = [[0.01 if task < 9 else -0.01] for task in range(11)]
    expected = scipy.stats.binomtest(9, 11).pvalue
    assert sign_flip_p(gains, unit="tasks") == pytest.approx(expected)


def test_more_signs_than_are_counted_are_drawn_and_no_p_is_0() -> None:
    gains = [[1.0 + 0.01 * task] for task in range(40)]
    assert sign_flip_p(gains, unit="tasks") == pytest.approx(2 / (sign_flips.RESAMPLES + 1))


@pytest.mark.parametrize("seeds", [2, 3, 10, 50])
def test_equal_seeds_are_no_more_certain_than_one(seeds: int) -> None:
    one = [[0.01], [0.02], [-0.005]]
    for unit in ("tasks", "seeds"):
        equal = [own * seeds for own in one]
        assert sign_flip_p(equal, unit=unit) == sign_flip_p(one, unit=unit) == 0.5
    assert sign_flip_p([[0.01] * seeds], unit="seeds") == 1.0
    almost = [[0.1 + 0.2, 0.3] * seeds]
    assert sign_flip_p(almost, unit="seeds") == 1.0


def test_seeds_of_one_task_say_nothing_about_other_tasks() -> None:
    gains = drawn(0, tasks=1, seeds=12, gain=0.1)
    assert sign_flip_p(gains, unit="tasks") == 1.0
    assert sign_flip_p(gains, unit="seeds") == 2 / 2**12


@pytest.mark.parametrize("gains", [[], [[]], [[0.0, 0.0], [0.0]]])
def test_no_difference_has_p_1(gains: list[list[float]]) -> None:
    assert sign_flip_p(gains, unit="tasks") == sign_flip_p(gains, unit="seeds") == 1.0


@pytest.mark.parametrize("unit", ["tasks", "seeds"])
def test_alike_settings_are_told_apart_in_at_most_5_of_100_studies(
    unit: sign_flips.Unit,
) -> None:
    found = [sign_flip_p(drawn(s, tasks=6, seeds=2, gain=0.0), unit=unit) for s in range(300)]
    assert np.mean(np.array(found) <= 0.05) <= 0.075  # 0.05 and two standard errors
