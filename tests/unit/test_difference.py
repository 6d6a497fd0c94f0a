"""The comparison of two settings over seeds and images, against closed forms and simulation."""

import numpy as np
import pytest
import scipy.stats

from idat_zoo.intervals import paired_interval
from idat_zoo.report.difference import difference_of, holm, seed_variances


def drawn(
    source: np.random.Generator, *, gain: float, seed_sd: float, seeds: int = 3, images: int = 500
) -> np.ndarray:
    """Differences in correctness of a crossed design: each seed has a gain of its own."""
    own = gain + seed_sd * source.standard_normal(seeds)
    of_image = 0.3 * source.standard_normal(images)
    chance = source.random((seeds, images))
    level = own[:, None] + of_image
    return np.sign(level) * (chance < np.abs(level).clip(0, 1))


def test_with_one_seed_it_is_students_test_over_images() -> None:
    differences = np.array([[1, 0, 0, -1, 1, 1, 0, 1, 0, 0]], dtype=float)
    found = difference_of(differences, seed_variance=0.0, freedom=0)
    expected = scipy.stats.ttest_1samp(differences[0], 0.0)
    assert found.gain == pytest.approx(0.3)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_with_seeds_the_two_variances_add() -> None:
    differences = np.array([[1, 0, 0, 1], [0, 0, -1, 1], [1, 1, 0, 0]], dtype=float)
    found = difference_of(differences, seed_variance=0.09, freedom=8)
    error = np.sqrt(differences.mean(0).var(ddof=1) / 4 + 0.09 / 3)
    half = scipy.stats.t.ppf(0.975, 8) * error
    gain = differences.mean()
    assert found.interval == pytest.approx((gain - half, gain + half))
    assert found.p == pytest.approx(2 * scipy.stats.t.sf(gain / error, 8))


def test_the_seeds_variance_is_what_images_do_not_explain() -> None:
    source = np.random.default_rng(0)
    still = [drawn(source, gain=0.05, seed_sd=0.0, images=2000) for _ in range(200)]
    moved = [drawn(source, gain=0.05, seed_sd=0.05, images=2000) for _ in range(200)]
    variance, freedom = seed_variances(moved)
    assert freedom == 400
    assert seed_variances(still)[0] < 5e-5 < 1e-3 < variance < 3e-3


def test_seeds_that_are_alone_have_no_variance() -> None:
    assert seed_variances([np.ones((1, 5)), np.zeros((1, 9))]) == (0.0, 0)


@pytest.mark.parametrize("seed_sd", [0.0, 0.03])
def test_its_interval_covers_the_gain_in_95_of_100_studies(seed_sd: float) -> None:
    source = np.random.default_rng(1)
    everywhere = [drawn(source, gain=0.04, seed_sd=seed_sd) for _ in range(4000)]
    true = float(np.mean([one.mean() for one in everywhere]))
    covered = []
    for _ in range(400):
        tasks = [drawn(source, gain=0.04, seed_sd=seed_sd) for _ in range(6)]
        variance, freedom = seed_variances(tasks)
        low, high = difference_of(tasks[0], seed_variance=variance, freedom=freedom).interval
        covered.append(low <= true <= high)
    assert 0.91 < np.mean(covered) < 0.99


def test_settings_that_always_agree_are_not_certain_to() -> None:
    found = difference_of(np.zeros((3, 1000)), seed_variance=0.0, freedom=12)
    assert (found.gain, found.p) == (0.0, 1.0)
    assert found.interval == paired_interval(0, 0, 1000)
    assert found.interval[1] > 0.003


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([], []),
    ],
)
def test_holms_correction(given: list[float], expected: list[float]) -> None:
    assert holm(given) == pytest.approx(expected)
