"""The claims of README.md and docs/inverse.md about the study `inverse`, held to its results."""

from pathlib import Path

import pytest

from idat_zoo.study.plan import load_plan
from idat_zoo.study.report import Comparison, StudyReport, build_study_report

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "inverse"
TERMS = ("mse", "kl", "kl_t2", "mutual", "until_teacher")
HELPED = ("textures", "lesions")


@pytest.fixture(scope="module")
def report() -> StudyReport:
    return build_study_report(load_plan(RESULTS), RESULTS)


def gains(report: StudyReport, *, adapter: str = "lora") -> dict[tuple[str, str], float]:
    """The gains of an adapter by arm and task."""
    return {
        (one.setting.arm, one.task): one.difference.gain
        for one in report.comparisons
        if one.setting.adapter == adapter and one.difference is not None
    }


def of(report: StudyReport, arm: str, task: str) -> Comparison:
    return next(
        one
        for one in report.comparisons
        if (one.setting.adapter, one.setting.arm, one.task) == ("lora", arm, task)
    )


def test_every_run_is_finished(report: StudyReport) -> None:
    assert (report.finished, report.missing) == (207, ())


def test_which_gains_can_be_told_from_0(report: StudyReport) -> None:
    assert {
        (one.setting.adapter, one.setting.arm, one.task)
        for one in report.comparisons
        if one.differs
    } == {
        ("lora", "mse", "textures"),
        ("lora", "mse", "lesions"),
        ("lora", "kl_t2", "textures"),
        ("lora", "kl", "sprites_loc"),
        ("lora", "joint_probe", "lesions"),
    }
    assert gains(report)["joint_probe", "lesions"] < 0
    assert all(gains(report)[arm, "digits"] < 0.0025 for arm in TERMS)


def test_the_mean_over_tasks_is_above_0_for_three_terms(report: StudyReport) -> None:
    means = {one.setting.arm: one for one in report.over_tasks if one.setting.adapter == "lora"}
    lows = {arm: means[arm].interval[0] for arm in TERMS}  # type: ignore[index]
    assert {arm for arm, low in lows.items() if low > 0} == {"mse", "kl_t2", "mutual"}
    assert abs(means["until_teacher"].gain) < 0.001
    assert all((means[arm].p or 0) > 0.05 for arm in TERMS)
    assert means["alone"].interval is None


def test_twins_and_ensembles_gain_a_part_of_what_mse_gains(report: StudyReport) -> None:
    found = gains(report)
    for task in HELPED:
        assert 0.4 < found["twins", task] / found["mse", task] < 0.6
        assert found["logit_ensemble", task] / found["mse", task] > 0.5
        assert found["swapped", task] > 0
        for arm in ("twins", "logit_ensemble"):
            difference = of(report, arm, task).difference
            assert difference is not None
            assert difference.interval[0] > 0


def test_the_teacher_too_is_better_under_mse(report: StudyReport) -> None:
    found = {
        (score.setting.arm, score.task): score.teacher
        for score in report.scores
        if score.setting.adapter == "lora"
    }
    for task in HELPED:
        assert found["mse", task] > found["none", task]  # type: ignore[operator]


def test_sequentials_gains_have_the_signs_of_loras(report: StudyReport) -> None:
    lora, sequential = gains(report), gains(report, adapter="sequential")
    assert {key: gain > 0 for key, gain in sequential.items()} == {
        key: lora[key] > 0 for key in sequential
    }
    assert all(gain == 0 for (arm, _), gain in lora.items() if arm == "alone")
