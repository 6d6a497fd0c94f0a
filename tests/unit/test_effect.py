"""The effect over tasks and its bootstrap: a closed form, all resamples, simulation."""

import itertools
import statistics

import numpy as np
import pytest
import scipy.stats

from idat_zoo.report import effect
from idat_zoo.report.effect import LEAST_TASKS, Effect, effect_over_tasks


def test_it_is_the_mean_over_the_deviation() -> None:
    gains = [0.01, 0.03, -0.01, 0.02]
    found = effect_over_tasks(gains)
    assert found == Effect(size=statistics.fmean(gains) / statistics.stdev(gains), interval=None)
    assert found.size * 2 == pytest.approx(scipy.stats.ttest_1samp(gains, 0).statistic)


@pytest.mark.parametrize("gains", [[], [0.01], [0.01] * 20])
def test_gains_without_a_spread_have_none(gains: list[float]) -> None:
    assert effect_over_tasks(gains) is None


def test_an_interval_needs_ten_tasks() -> None:
    gains = [0.01 * (k % 4) for k in range(LEAST_TASKS)]
    ten, nine = effect_over_tasks(gains), effect_over_tasks(gains[1:])
    assert ten is not None
    assert ten.interval is not None
    assert ten.interval[0] < ten.size < ten.interval[1]
    assert nine is not None
    assert nine.interval is None


def test_it_is_the_same_every_time_and_in_any_unit() -> None:
    gains = list(map(float, np.random.default_rng(0).normal(0.01, 0.02, 19)))
    first, again = effect_over_tasks(gains), effect_over_tasks(gains)
    points = effect_over_tasks([100 * gain for gain in gains])
    assert first == again
    assert first is not None
    assert points is not None
    assert points.size == pytest.approx(first.size)
    assert points.interval == pytest.approx(first.interval)


def test_its_bootstrap_is_that_of_all_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """BCa from all 6**6 resamples, by its formula, and from 200,000 drawn ones."""
    monkeypatch.setattr(effect, "LEAST_TASKS", 6)
    monkeypatch.setattr(effect, "RESAMPLES", 200_000)
    gains = np.array([0.01, 0.035, -0.012, 0.021, 0.004, 0.05])
    found = effect_over_tasks(list(gains))
    assert found is not None
    assert found.interval is not None

    def size(values: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return values.mean(-1) / values.std(-1, ddof=1)

    every = size(gains[np.array(list(itertools.product(range(6), repeat=6)))])
    normal = scipy.stats.norm
    below = (every < found.size - 1e-9).mean() + (every < found.size + 1e-9).mean()
    shift = normal.ppf(below / 2)
    without = size(np.array([np.delete(gains, k) for k in range(6)]))
    apart = without.mean() - without
    bend = (apart**3).sum() / (6 * (apart**2).sum() ** 1.5)
    for end, z in zip(found.interval, normal.ppf([0.025, 0.975]), strict=True):
        level = normal.cdf(shift + (shift + z) / (1 - bend * (shift + z)))
        assert end == pytest.approx(np.quantile(every, level), rel=0.03)


def test_gains_that_are_nearly_all_alike_have_no_bound() -> None:
    found = effect_over_tasks([0.01] * 11 + [0.02])
    assert found is not None
    assert found.interval is None


def test_of_tasks_without_a_gain_but_one_the_interval_begins_at_0() -> None:
    found = effect_over_tasks([0.0] * 11 + [0.01])
    assert found is not None
    assert found.interval is not None
    assert found.interval[0] == 0


@pytest.mark.parametrize("tasks", [10, 19])
def test_its_interval_covers_the_effect_as_often_as_is_said(tasks: int) -> None:
    """Nominally 95 of 100; the module says how many of so few tasks. 0.06 is two errors of 120."""
    source = np.random.default_rng(3)
    covered = []
    for _ in range(120):
        found = effect_over_tasks(list(map(float, source.normal(0.02, 0.02, tasks))))
        assert found is not None
        assert found.interval is not None
        covered.append(found.interval[0] <= 1.0 <= found.interval[1])
    assert np.mean(covered) >= 0.89 - 0.06
