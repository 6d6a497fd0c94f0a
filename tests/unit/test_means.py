"""Means over tasks: what is averaged, and what never is."""

import statistics
from typing import Any

import pytest
from made_results import MINI, VTAB_1K, build_report, made, on_task, text

from conftest import toy_recipe
from idat_zoo.registry import load_registry
from idat_zoo.report.benchmark import Benchmark
from idat_zoo.report.layout import lay_out


@pytest.mark.parametrize(("known", "count"), [(VTAB_1K, 19), (MINI, 6)])
def test_the_tasks_of_a_suite_are_the_registrys(known: Benchmark, count: int) -> None:
    tasks = [task for task in load_registry().tasks.values() if task.suite == known.suite]
    for group, members in known.groups.items():
        assert tuple(task.id for task in tasks if task.group == group) == members
    assert len(known.tasks) == len(tasks) == count


def test_all_nineteen_tasks_have_mean19_and_mean3() -> None:
    tops = dict(zip(VTAB_1K.tasks, range(50, 69), strict=True))
    report = build_report([made(tops[task], on_task(task)) for task in VTAB_1K.tasks])
    (series,) = report.means
    groups = [statistics.fmean(tops[task] / 100 for task in g) for g in VTAB_1K.groups.values()]
    assert [mean.name for mean in series.overall] == ["mean19", "mean3"]
    assert [mean.top1 for mean in series.groups] == pytest.approx(groups, abs=1e-12)
    assert series.overall[0].top1 == pytest.approx(0.59, abs=1e-12)
    assert series.overall[1].top1 == pytest.approx(statistics.fmean(groups), abs=1e-12)
    assert "mean19 59.00, mean3 " in text(report)


@pytest.mark.parametrize("missing", ["cifar100", "eurosat", "smallnorb_ele"])
def test_fewer_tasks_have_a_mean_that_says_so(missing: str) -> None:
    report = build_report([made(50, on_task(task)) for task in VTAB_1K.tasks if task != missing])
    shown = text(report)
    assert [mean.name for mean in report.means[0].overall] == ["mean of 18 tasks"]
    assert "mean of 18 tasks 50.00" in shown
    assert " tasks)" in shown
    assert not any(name in shown for name in ("mean19", "mean3", "avg", "average"))


def test_the_mini_suite_has_mean6_and_mean3_in_a_table_that_names_it() -> None:
    tops = dict(zip(MINI.tasks, (90, 50, 40, 30, 20, 10), strict=True))
    report = build_report([made(top1, on_task(task)) for task, top1 in tops.items()])
    (series,) = report.means
    assert series.suite == "mini"
    assert [(mean.name, mean.count) for mean in series.groups] == [
        ("natural", 2),
        ("specialized", 1),
        ("structured", 3),
    ]
    assert {mean.name: mean.top1 for mean in series.overall} == pytest.approx(
        {"mean6": 0.4, "mean3": statistics.fmean([0.7, 0.4, 0.2])}, abs=1e-12
    )
    shown = text(report)
    assert "**Means of top-1 % over the mini suite (built in, not VTAB-1K)**" in shown
    assert "| 70.00 | 40.00 | 20.00 | mean6 40.00, mean3 43.33 |" in shown
    assert "mean6 is over the 6 tasks, mean3 over the three group means." in shown
    assert "over VTAB-1K" not in shown


def test_two_suites_have_two_tables_and_never_one_mean() -> None:
    found = [made(10, on_task(t)) for t in ("digits", "textures", "lesions")]
    found += [made(50, on_task("dtd")), made(70, on_task("svhn"))]
    report = build_report(found)
    assert {s.suite: (s.tasks, s.overall[0].top1) for s in report.means} == {
        "mini": (("digits", "textures", "lesions"), pytest.approx(0.1, abs=1e-12)),
        "vtab1k": (("dtd", "svhn"), pytest.approx(0.6, abs=1e-12)),
    }
    titles = [section.title for section in lay_out(report) if "Means" in section.title]
    assert titles == [
        "Means of top-1 % over the mini suite (built in, not VTAB-1K)",
        "Means of top-1 % over VTAB-1K",
    ]


def test_a_task_that_only_takes_a_suites_name_enters_no_mean() -> None:
    own = on_task("dtd").task.model_copy(update={"id": "own"})
    folder = own.model_copy(update={"suite": "folder", "group": None, "id": "svhn"})
    found = [made(50, on_task("dtd"))]
    found += [made(60, toy_recipe().model_copy(update={"task": task})) for task in (own, folder)]
    assert build_report(found).means == ()


def test_one_task_has_no_mean() -> None:
    assert build_report([made(50, on_task("dtd")), made(10)]).means == ()


def test_what_recipes_set_task_by_task_may_differ_in_a_mean_and_is_said() -> None:
    found = [
        made(50, on_task(t, lr=1e-2 if t == "svhn" else 1e-3)) for t in ("dtd", "pets", "svhn")
    ]
    report = build_report(found)
    (series,) = report.means
    assert series.by_task == {"lr": {"0.001": ("dtd", "pets"), "0.01": ("svhn",)}}
    assert "lr 0.01 on svhn; 0.001 on the others" in text(report)


def test_two_recipes_of_one_task_never_enter_one_mean() -> None:
    found = [made(50, on_task(t, lr=lr)) for t in ("dtd", "svhn") for lr in (1e-3, 1e-2)]
    found.append(made(90, on_task("pets", lr=1e-3)))
    report = build_report(found)
    assert {series.tasks: series.label for series in report.means} == {
        ("dtd", "pets", "svhn"): {"lr": 0.001},
        ("dtd", "svhn"): {"lr": 0.01},
    }
    said = "the means over VTAB-1K: they are over different tasks, so they do not compare"
    assert said in report.notes


def test_a_series_is_not_labelled_with_what_it_sets_task_by_task() -> None:
    rates = {"dtd": 1e-3, "svhn": 1e-2}
    found = [made(50, on_task(t, lr=lr)) for t in rates for lr in rates.values()]
    found += [made(60, on_task(t, adapter="sequential", lr=lr)) for t, lr in rates.items()]
    series = [s for s in build_report(found).means if s.label["adapter"] == "sequential"]
    assert [s.label for s in series] == [{"adapter": "sequential"}]


@pytest.mark.parametrize("changes", [{"epochs": 3}, {"teacher": False}, {"distillation": "kl"}])
def test_methods_that_share_no_task_are_still_not_averaged(changes: dict[str, Any]) -> None:
    assert (
        build_report([made(50, on_task("dtd")), made(70, on_task("svhn", **changes))]).means == ()
    )


def test_the_optimistic_numbers_have_a_mean_of_their_own() -> None:
    found = [
        made(50, on_task(task, protocol="paper"), top1_best_on_test=best)
        for task, best in (("dtd", 0.6), ("svhn", 0.7))
    ]
    (mean,) = build_report(found).means[0].overall
    assert mean.top1 == pytest.approx(0.5, abs=1e-12)
    assert mean.top1_best_on_test == pytest.approx(0.65, abs=1e-12)
    assert "| protocol paper |" in text(build_report(found))


def test_no_mean_is_over_two_selections() -> None:
    grid = {"candidates": {"lr": (1e-3, 1e-2)}}
    ways: dict[str, dict[str, Any]] = {
        "none": {},
        "val": {"selection": "val", **grid},
        "ensemble": {"selection": "ensemble", **grid},
    }
    report = build_report(
        [made(50, on_task(task, **fields)) for task in MINI.tasks for fields in ways.values()]
    )
    found = {str(series.label.get("selection", "none")): series for series in report.means}
    assert found.keys() == ways.keys()
    assert all(series.tasks == MINI.tasks for series in found.values())
    mixed = [made(50, on_task(task, **ways["ensemble"])) for task in MINI.tasks[:3]]
    mixed += [made(50, on_task(task)) for task in MINI.tasks[3:]]
    assert [len(series.tasks) for series in build_report(mixed).means] == [3, 3]
    assert not any("mean6" in mean.name for s in build_report(mixed).means for mean in s.overall)


def test_five_methods_of_a_suite_are_ranked_over_its_tasks() -> None:
    rates = (1e-3, 2e-3, 3e-3, 4e-3, 5e-3)
    found = [
        made(50 + 5 * place, on_task(task, lr=lr), seed=seed)
        for task in MINI.tasks
        for place, lr in enumerate(rates)
        for seed in range(3)
    ]
    report = build_report([*found, made(99, on_task("digits", lr=1e-2))])
    ranks = report.ranks["mini"]
    assert [one.method for one in ranks.methods] == [f"lr {lr:g}" for lr in reversed(rates)]
    assert [one.rank for one in ranks.methods] == [1, 2, 3, 4, 5]
    assert ranks.tasks == MINI.tasks  # seeds are no tasks
    assert "| lr 0.005 | 1.00 | a |" in text(report)
    assert "Average ranks of 5 recipes over 6 tasks of the mini suite" in text(report)
    assert build_report(found[: -3 * len(rates) * 3]).ranks == {}  # three tasks are left
    assert build_report([one for one in found if one[1].recipe.lr > 1e-3]).ranks == {}


def test_methods_are_ranked_by_the_names_that_a_narrow_report_gives_them() -> None:
    rates = (1e-3, 2e-3, 3e-3, 4e-3, 5e-3)
    report = build_report([made(50, on_task(t, lr=lr)) for t in MINI.tasks for lr in rates])
    (section,) = (s for s in lay_out(report, label_width=4) if s.title.startswith("Average ranks"))
    assert [row[:2] for row in section.rows] == [(f"R{k}", "3.00") for k in range(1, 6)]
    assert "Friedman's p that all are alike: 1.0000" in section.lines[0]
