"""Average ranks, against published values, scipy and simulation."""

import itertools

import numpy as np
import pytest
import scipy.stats

from idat_zoo.report.ranks import (
    LEAST_METHODS,
    LEAST_TASKS,
    average_ranks,
    critical_difference,
    friedman_p,
)
from idat_zoo.report.ranks_layout import lay_out_ranks

NEMENYI = {
    2: 1.960,
    3: 2.343,
    4: 2.569,
    5: 2.728,
    6: 2.850,
    7: 2.949,
    8: 3.031,
    9: 3.102,
    10: 3.164,
}
"""q at 0.05 by the number of methods: Demšar (2006), table 5 (a)."""
DEMSAR = {
    "C4.5": [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.000, 0.940, 0.619,
             0.972, 0.957],
    "C4.5+m": [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.000, 0.962, 0.666,
               0.981, 0.978],
    "C4.5+cf": [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.000, 0.965, 0.614,
                0.9751, 0.946],
    "C4.5+m+cf": [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.000, 0.962,
                  0.669, 0.975, 0.970],
}  # fmt: skip
"""AUC of four methods on 14 data sets: Demšar (2006), table 6."""


def scores(table: np.ndarray) -> dict[str, dict[str, float]]:
    """Numbers `[T, M]` by method and task."""
    return {
        f"m{m}": {f"t{t}": float(value) for t, value in enumerate(column)}
        for m, column in enumerate(table.T)
    }


def drawn(seed: int, tasks: int = 6, methods: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).random((tasks, methods))


@pytest.mark.parametrize("methods", NEMENYI)
def test_the_critical_difference_is_the_published_one(methods: int) -> None:
    expected = NEMENYI[methods] * np.sqrt(methods * (methods + 1) / (6 * 14))
    assert critical_difference(methods, 14) == pytest.approx(expected, rel=4e-4)


def test_friedmans_p_is_its_closed_form_on_published_numbers() -> None:
    table = np.array(list(DEMSAR.values())).T
    ranks = scipy.stats.rankdata(-table, axis=1)
    assert ranks.mean(0) == pytest.approx([3.143, 2.0, 2.893, 1.964], abs=1e-3)
    tasks, methods = table.shape
    chi2 = 12 * tasks / (methods * (methods + 1)) * ((ranks.mean(0) ** 2).sum() - 6.25 * 4)
    assert chi2 == pytest.approx(9.28, abs=5e-3)  # without the correction for ties, as printed
    assert friedman_p(table) == pytest.approx(scipy.stats.friedmanchisquare(*table.T).pvalue)
    assert friedman_p(table) < scipy.stats.chi2.sf(chi2, methods - 1)


def test_ranks_and_p_are_scipys() -> None:
    table = drawn(0)
    found = average_ranks(scores(table))
    assert found is not None
    expected = dict(
        zip([f"m{m}" for m in range(6)], scipy.stats.rankdata(-table, axis=1).mean(0), strict=True)
    )
    assert {one.method: one.rank for one in found.methods} == pytest.approx(expected)
    assert [one.rank for one in found.methods] == sorted(expected.values())
    assert found.p == pytest.approx(scipy.stats.friedmanchisquare(*table.T).pvalue)


def test_ties_share_their_rank_also_where_the_last_bits_differ() -> None:
    table = np.tile([0.1 + 0.2, 0.3, 0.2, 0.1, 0.0], (4, 1))
    found = average_ranks(scores(table))
    assert found is not None
    assert [one.rank for one in found.methods] == [1.5, 1.5, 3, 4, 5]


def test_methods_that_are_equal_everywhere_are_alike() -> None:
    found = average_ranks(scores(np.full((5, 6), 0.5)))
    assert found is not None
    assert found.p == 1.0
    assert {one.rank for one in found.methods} == {3.5}
    assert len(found.alike) == 1
    assert len(found.alike[0]) == 6


def test_alike_are_all_neighbours_within_the_difference_and_no_others() -> None:
    for seed in range(20):
        found = average_ranks(scores(np.sort(drawn(seed, 8, 7), axis=1) + drawn(seed + 100, 8, 7)))
        assert found is not None
        ranks = {one.method: one.rank for one in found.methods}
        for one, other in itertools.combinations(ranks, 2):
            within = abs(ranks[one] - ranks[other]) <= found.critical_difference
            assert any({one, other} <= set(run) for run in found.alike) == within
        assert not any(set(a) < set(b) for a in found.alike for b in found.alike)


def test_few_methods_or_tasks_are_not_ranked() -> None:
    assert average_ranks(scores(drawn(0, LEAST_TASKS, LEAST_METHODS))) is not None
    assert average_ranks(scores(drawn(0, LEAST_TASKS, LEAST_METHODS - 1))) is None
    assert average_ranks(scores(drawn(0, LEAST_TASKS - 1, LEAST_METHODS))) is None
    assert average_ranks({}) is None


def test_a_method_that_lacks_a_task_is_left_out_by_name() -> None:
    made = scores(drawn(0, 6, 6))
    del made["m2"]["t3"]
    found = average_ranks(made)
    assert found is not None
    assert found.left_out == ("m2",)
    assert len(found.methods) == 5
    section = lay_out_ranks(found, what="recipes", names={"m2": "R2", "m0": "R0"})
    assert section.lines[-1] == "left out, without a result on every task: R2"
    assert {row[0] for row in section.rows} == {"R0", "m1", "m3", "m4", "m5"}


def test_alike_methods_differ_in_at_most_5_of_100_studies() -> None:
    source = np.random.default_rng(2)
    wrong = 0
    for _ in range(400):
        ranks = scipy.stats.rankdata(source.random((10, 6)), axis=1).mean(0)
        wrong += np.ptp(ranks) > critical_difference(6, 10)
    assert wrong / 400 <= 0.07  # 0.05 and two standard errors
