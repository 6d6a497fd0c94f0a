"""The report of a study, over results made by hand."""

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from made_results import COUNT, made, on_task, scored
from scipy.stats import rankdata

from idat_zoo.report.cells import p_value, points
from idat_zoo.report.difference import difference_of, seed_variances
from idat_zoo.report.effect import effect_over_tasks
from idat_zoo.report.markdown import as_markdown
from idat_zoo.report.predictions import CLASSES_FILE, LOGIT_ENSEMBLE
from idat_zoo.report.sign_flips import sign_flip_p
from idat_zoo.results import write_result
from idat_zoo.study.layout import findings, lay_out_study
from idat_zoo.study.outcomes import Setting
from idat_zoo.study.plan import Entry, StudyPlan
from idat_zoo.study.report import StudyReport, build_study_report

TASKS = ("digits", "textures", "lesions", "count")
SEEDS = (0, 1, 2)
MSE, BOTH = (Setting(adapter="lora", arm=arm) for arm in ("mse", "both"))

Made = tuple[StudyPlan, Path, dict[tuple[str, str, int], np.ndarray]]
"""A plan, the study's folder, and which images are right: by task, arm and seed."""


def entry(task: str, arm: str, seed: int, *, adapter: str = "lora") -> Entry:
    return Entry(
        part=1,
        task=task,
        adapter=adapter,
        arm=arm,
        seed=seed,
        metric="logit_ensemble" if arm == "both" else "student",
        recipe=on_task(task),
        folder=f"{adapter}/{task}/{'none' if arm == 'both' else arm}/seed{seed}",
    )


def plan_of(*entries: Entry) -> StudyPlan:
    passes = tuple((one,) for one in dict.fromkeys(one.folder for one in entries))
    return StudyPlan(name="made", title="Made", reference="none", entries=entries, passes=passes)


def write_run(folder: Path, one: Entry, right: Mapping[str, np.ndarray], **fields: object) -> None:
    """A finished run whose networks are right on these images, `[N]` each."""
    recipe = one.recipe
    _, result = made(int(right["student"].sum()), recipe, seed=one.seed, **fields)
    place = folder / one.folder
    place.mkdir(parents=True, exist_ok=True)
    write_result(place / "result.json", result)
    classes = {name: (~own).astype(np.uint8) for name, own in right.items()}
    kept = {"index": np.arange(COUNT), "target": np.zeros(COUNT, np.uint8)} | classes
    (place / CLASSES_FILE).write_bytes(safetensors.numpy.save(kept))


def right_on(source: np.random.Generator, share: float) -> np.ndarray:
    return source.random(COUNT) < share


@pytest.fixture
def study(tmp_path: Path) -> Made:
    """Four tasks: `mse` is better by more on each, `both` reads the ensemble of `none`'s runs."""
    source, right = np.random.default_rng(0), {}
    entries = [
        entry(task, arm, seed)
        for task in TASKS
        for arm in ("none", "mse", "both")
        for seed in SEEDS
    ]
    for place, task in enumerate(TASKS):
        for seed in SEEDS:
            right[task, "none", seed] = right_on(source, 0.5)
            right[task, "both", seed] = right[task, "none", seed] | right_on(source, 0.2)
            right[task, "mse", seed] = right[task, "none", seed] | right_on(
                source, 0.1 + 0.2 * place
            )
            write_run(
                tmp_path,
                entry(task, "none", seed),
                {
                    "student": right[task, "none", seed],
                    LOGIT_ENSEMBLE: right[task, "both", seed],
                },
            )
            write_run(tmp_path, entry(task, "mse", seed), {"student": right[task, "mse", seed]})
    return plan_of(*entries), tmp_path, right


def text_of(report: StudyReport) -> str:
    return as_markdown(lay_out_study(report))


def test_gains_are_paired_by_image_and_seed(study: Made) -> None:
    plan, folder, right = study
    report = build_study_report(plan, folder)
    assert (report.finished, report.missing) == (24, ())
    differences = {
        task: np.stack([right[task, "mse", s].astype(int) - right[task, "none", s] for s in SEEDS])
        for task in TASKS
    }
    variance, freedom = seed_variances(list(differences.values()))
    assert freedom == 8
    for one in report.comparisons:
        if one.setting == MSE:
            expected = difference_of(differences[one.task], seed_variance=variance, freedom=freedom)
            assert one.difference is not None
            assert one.difference.model_copy(update={"holm": 1.0}) == expected
            assert one.difference.holm >= one.difference.p


def test_an_arm_may_read_the_ensemble_of_another_arms_runs(study: Made) -> None:
    plan, folder, right = study
    report = build_study_report(plan, folder)
    scores = {(score.setting, score.task): score for score in report.scores}
    for task in TASKS:
        expected = np.mean([right[task, "both", seed].mean() for seed in SEEDS])
        assert scores[BOTH, task].top1 == pytest.approx(expected)
    gains = {one.task: one.difference for one in report.comparisons if one.setting == BOTH}
    assert all(found is not None and found.gain > 0 for found in gains.values())


def test_what_holds_after_holms_correction_is_said(study: Made) -> None:
    plan, folder, right = study
    for seed in SEEDS:
        same = {"student": right["digits", "none", seed]}
        write_run(folder, entry("digits", "mse", seed), same)
    report = build_study_report(plan, folder)
    gains = {
        one.task: f"{points(one.difference.gain)}{'*' if one.differs else ''}"
        for one in report.comparisons
        if one.setting == MSE and one.difference is not None
    }
    found = findings(report)
    assert found.columns == ("adapter", "arm", *TASKS)
    assert ("lora", "mse", *gains.values()) in found.rows
    assert gains["digits"] == "+0.00"
    assert gains["count"].endswith("*")
    assert "over all 8 comparisons" in text_of(report)


def test_the_teachers_top1_is_beside_the_students(study: Made) -> None:
    plan, folder, right = study
    for seed, correct in zip(SEEDS, (70, 80, 84), strict=True):
        own = {"student": right["digits", "mse", seed]}
        write_run(folder, entry("digits", "mse", seed), own, teacher=scored(correct))
    report = build_study_report(plan, folder)
    found = {(score.setting, score.task): score.teacher for score in report.scores}
    assert found[MSE, "digits"] == pytest.approx(0.78)
    assert found[MSE, "count"] is None
    assert found[BOTH, "digits"] is None
    assert "| lora | mse | 78.0 |" in text_of(report)


def test_gains_are_set_against_a_linear_probe(study: Made) -> None:
    plan, folder, _ = study
    probes = []
    for task, correct in zip(TASKS, (90, 80, 70, 60), strict=True):
        one = entry(task, "alone", 0, adapter="linear")
        one = one.model_copy(update={"recipe": on_task(task, adapter="linear", teacher=False)})
        write_run(folder, one, {"student": np.arange(COUNT) < correct})
        probes.append(one)
    report = build_study_report(plan_of(*plan.entries, *probes), folder)
    assert report.probe == {"digits": 0.9, "textures": 0.8, "lesions": 0.7, "count": 0.6}
    (over,) = (one for one in report.over_tasks if one.setting == MSE)
    assert over.correlation == pytest.approx(-1.0)
    assert over.p == pytest.approx(2 / 24)  # of 4! orders, the two extreme ones
    assert "rank correlation" in text_of(report)


def test_the_mean_gain_is_tested_over_tasks_and_over_seeds(study: Made) -> None:
    plan, folder, right = study
    report = build_study_report(plan, folder)
    over = {one.setting: one for one in report.over_tasks}
    gains = [
        [float(np.mean(right[t, "mse", s].astype(int) - right[t, "none", s])) for s in SEEDS]
        for t in TASKS
    ]
    effect = effect_over_tasks([float(np.mean(own)) for own in gains])
    flips = over[MSE].flips_of_tasks
    assert (flips.p, flips.holm) == (2 / 2**4, 2 * 2 / 2**4)  # four gains of one sign, two settings
    seeds = over[MSE].flips_of_seeds
    assert seeds is not None
    assert seeds.p == pytest.approx(sign_flip_p(gains, unit="seeds"))
    assert effect is not None
    assert over[MSE].effect is not None
    assert over[MSE].effect.size == pytest.approx(effect.size)
    text = text_of(report)
    assert "| tasks | p (tasks) | p (seeds) | effect |" in text
    assert f"| 4 | 0.2500 | {p_value(seeds.holm)} | {effect.size:+.2f} |" in text


def test_equal_seeds_count_as_one(study: Made) -> None:
    plan, folder, right = study
    for task in TASKS:
        for arm, seed in itertools.product(("none", "mse"), SEEDS):
            first = {"student": right[task, arm, 0], LOGIT_ENSEMBLE: right[task, "both", 0]}
            write_run(folder, entry(task, arm, seed), first)
    for one in build_study_report(plan, folder).over_tasks:
        assert one.flips_of_seeds == one.flips_of_tasks


def test_with_one_seed_other_seeds_are_not_spoken_of(tmp_path: Path) -> None:
    entries = [entry(task, arm, 0) for task in TASKS for arm in ("none", "mse")]
    source = np.random.default_rng(1)
    for one in entries:
        write_run(tmp_path, one, {"student": right_on(source, 0.5)})
    report = build_study_report(plan_of(*entries), tmp_path)
    assert report.over_tasks[0].flips_of_seeds is None
    assert "p (tasks)" in text_of(report)
    assert "(seeds)" not in text_of(report)


def test_five_settings_on_four_tasks_are_ranked(study: Made) -> None:
    plan, folder, _ = study
    assert build_study_report(plan, folder).ranks is None  # three settings
    source = np.random.default_rng(1)
    more = [entry(task, arm, 0) for task in TASKS for arm in ("kl", "dkd")]
    for one in more:
        write_run(folder, one, {"student": right_on(source, 0.2)})
    report = build_study_report(plan_of(*plan.entries, *more), folder)
    assert report.ranks is not None
    ranks = {one.method: one.rank for one in report.ranks.methods}
    scores = {(score.setting.name, score.task): score.top1 for score in report.scores}
    table = np.array([[scores[name, task] for task in TASKS] for name in ranks])
    assert list(ranks.values()) == pytest.approx(list(rankdata(-table, axis=0).mean(1)))
    assert "Average ranks of 5 settings over 4 tasks" in text_of(report)


def test_missing_runs_are_named_and_the_rest_is_compared(study: Made) -> None:
    plan, folder, _ = study
    gone = entry("digits", "mse", 2).folder
    (folder / gone / "result.json").unlink()
    report = build_study_report(plan, folder)
    assert report.missing == (gone,)
    (digits,) = (
        one.difference for one in report.comparisons if (one.setting, one.task) == (MSE, "digits")
    )
    assert digits is not None
    assert digits.seeds == 2
    assert f"missing: {gone}" in text_of(report)
    assert "23 of 24 runs" in text_of(report)


def test_one_comparison_is_not_called_several(tmp_path: Path) -> None:
    entries = [entry("digits", arm, 0) for arm in ("none", "mse")]
    for one in entries:
        write_run(tmp_path, one, {"student": np.ones(COUNT, bool)})
    text = text_of(build_study_report(plan_of(*entries), tmp_path))
    assert "Holm's correction over the one comparison;" in text


def test_classes_that_are_not_the_results_are_not_compared(study: Made) -> None:
    plan, folder, _ = study
    other = entry("digits", "mse", 0)
    kept = safetensors.numpy.load((folder / other.folder / CLASSES_FILE).read_bytes())
    kept["student"] = 1 - kept["student"]
    (folder / other.folder / CLASSES_FILE).write_bytes(safetensors.numpy.save(kept))
    report = build_study_report(plan, folder)
    (digits,) = (one for one in report.comparisons if (one.setting, one.task) == (MSE, "digits"))
    assert digits.difference is None
    assert digits.why_not in text_of(report)


def test_nothing_finished_is_no_error(study: Made, tmp_path: Path) -> None:
    plan, _, _ = study
    report = build_study_report(plan, tmp_path / "elsewhere")
    assert report.finished == 0
    assert len(lay_out_study(report)) == 1  # no table without rows
    assert "0 of 24 runs are finished" in text_of(report)


def test_the_table_over_tasks_explains_only_the_columns_that_it_has(
    study: Made,
) -> None:
    plan, folder, _ = study
    one_task = plan_of(*(entry for entry in plan.entries if entry.task == "digits"))
    for given, shown in ((plan, True), (one_task, False)):
        sections = lay_out_study(build_study_report(given, folder))
        (over,) = (one for one in sections if one.title.startswith("Over tasks"))
        assert ("95 % interval" in over.columns, "effect" in over.columns) == (shown, shown)
        told = " ".join(over.lines)
        assert ("The interval is" in told, "effect:" in told) == (shown, shown)
        assert "p (tasks)" in told
