"""Reports: what is averaged, what never is, how gains are paired, and what is pointed out."""

import io
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor
from typer.testing import CliRunner
from typer.testing import Result as Outcome

from conftest import toy_recipe
from idat_zoo import files
from idat_zoo.cli import app
from idat_zoo.metrics import Metrics, paired_interval, unpaired_interval, wilson_interval
from idat_zoo.recipe import Recipe, Task
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.registry import averaged_tasks, load_registry
from idat_zoo.report import build as report_build
from idat_zoo.report.build import Report
from idat_zoo.report.fields import flatten
from idat_zoo.report.layout import as_count, lay_out
from idat_zoo.report.markdown import as_markdown, markdown_table
from idat_zoo.report.means import Benchmark, benchmarks
from idat_zoo.report.rows import estimate
from idat_zoo.results import Candidate, ImageCounts, Parameters, Result, Selection, find_results
from idat_zoo.runs.many import run

COUNT = 100
T_2 = 4.302652729749462  # Student's 0.975 quantile for 3 seeds
NOWHERE = Path("nowhere/result.json")
BASELINES = {"logistic_regression": 0.96, "nearest_neighbour": 0.98}

Found = tuple[Path, Result]
AVERAGED = averaged_tasks(load_registry())
BENCHMARKS = {known.suite: known for known in benchmarks(AVERAGED)}
MINI, VTAB_1K = BENCHMARKS["mini"], BENCHMARKS["vtab1k"]


def build_report(found: Sequence[Found]) -> Report:
    """The report as `idat report` builds it without a shelf of one's own."""
    return report_build.build_report(found, averaged=AVERAGED)


def scored(correct: int) -> Metrics:
    top1, interval = correct / COUNT, wilson_interval(correct, COUNT)
    return Metrics(
        top1=top1,
        top1_interval=interval,
        balanced_accuracy=top1,
        calibration_error=0.0,
        count=COUNT,
        per_class=(),
        confusion=(),
    )


def made(correct: int = 90, recipe: Recipe | None = None, **fields: Any) -> Found:
    """A result with so many of 100 images right, where no file is."""
    recipe = recipe or toy_recipe()
    digests = {"student": "5" * 64} | ({"teacher": "7" * 64} if recipe.pair.teacher else {})
    values: dict[str, Any] = {
        "kind": "run",
        "top1": correct / COUNT,
        "top1_interval": wilson_interval(correct, COUNT),
        "student": scored(correct),
        "parameters": Parameters(adapter=1536, head=250, backbone=19272),
        "recipe": recipe,
        "recipe_hash": recipe_hash(recipe),
        "seed": 0,
        "data_fingerprint": f"data of {recipe.task.id}",
        "backbone_sha256": digests,
        "device": "cpu, 1 thread",
        "versions": {"torch": "2.6"},
        "seconds": 1.0,
        "finished": "2026-01-01T00:00:00+00:00",
    }
    return NOWHERE, Result(**(values | fields))


def on_task(task: str, **fields: Any) -> Recipe:
    """The toy recipe on a task of VTAB-1K or of the mini suite."""
    suite, group = next(
        (known.suite, group)
        for known in BENCHMARKS.values()
        for group, tasks in known.groups.items()
        if task in tasks
    )
    spec: dict[str, Any] = {"id": task, "suite": suite, "group": group}
    changed = Task(**spec, num_classes=10, num_test=(COUNT,))
    return toy_recipe(**fields).model_copy(update={"task": changed})


def predicted(right: Sequence[bool]) -> Tensor:
    """Logits of two classes that are right about class 1 where asked."""
    return torch.tensor([[0.0, 1.0] if is_right else [1.0, 0.0] for is_right in right])


def written(folder: Path, right: Sequence[bool], recipe: Recipe, seed: int = 0) -> Found:
    """A result in a folder with its predictions, right about the images asked for."""
    count = len(right)
    tensors = {
        "index": torch.arange(count),
        "target": torch.ones(count, dtype=torch.int64),
        "student": predicted(right),
    }
    file = folder / "predictions.safetensors"
    files.write_whole(file, files.dump_tensors(tensors))
    result = made(
        round(COUNT * sum(right) / count),
        recipe,
        seed=seed,
        top1=sum(right) / count,
        files={file.name: files.sha256(file)},
    )[1]
    files.write_whole(folder / "result.json", files.dump_json(result.as_json()))
    return folder / "result.json", result


def labels(report: Report) -> list[dict[str, Any]]:
    return [row.label for row in report.rows]


def text(report: Report) -> str:
    return as_markdown(lay_out(report))


# What sets recipes apart


def test_a_lone_recipe_needs_no_label() -> None:
    assert labels(build_report([made()])) == [{}]


@pytest.mark.parametrize(
    ("changes", "first", "second"),
    [
        ({"lr": 3e-3}, {"lr": 0.003}, {"lr": 0.005}),
        ({"distillation": "kl"}, {"distillation": "kl"}, {"distillation": "mse"}),
        ({"teacher": False}, {"teacher": "none"}, {"teacher": "toy_teacher"}),
        ({"adapter": "sequential"}, {"adapter": "lora"}, {"adapter": "sequential"}),
        (
            {"options": {"rank": 4}},
            {"adapter.rank": 4, "teacher_adapter.rank": 4},
            {"adapter.rank": 8, "teacher_adapter.rank": 8},
        ),
    ],
)
def test_recipes_of_one_task_are_rows_told_apart_by_what_differs(
    changes: dict[str, Any], first: dict[str, Any], second: dict[str, Any]
) -> None:
    report = build_report([made(90), made(80, toy_recipe(**changes))])
    assert len(report.rows) == 2
    assert labels(report) == [first, second]


def test_an_option_written_out_at_its_default_is_no_difference() -> None:
    written_out = toy_recipe(options={"rank": 8})
    assert flatten(made(recipe=written_out)[1]) == flatten(made()[1])


def test_fields_that_do_not_act_are_left_out() -> None:
    alone = flatten(made(recipe=toy_recipe(teacher=False))[1])
    assert alone["teacher"] == "none"
    assert not {"distillation", "detach", "teacher_adapter", "temperature"} & alone.keys()
    assert "temperature" in flatten(made(recipe=toy_recipe(distillation="kl"))[1])


def test_what_candidates_choose_is_not_shown_as_the_recipes() -> None:
    recipe = toy_recipe(selection="val", candidates={"lr": (1e-3, 1e-2)})
    fields = flatten(made(recipe=recipe)[1])
    assert "lr" not in fields
    assert fields["candidates"] == "lr=[0.001, 0.01]"


# Seeds and intervals


def test_one_seed_has_the_interval_over_images() -> None:
    (row,) = build_report([made(90)]).rows
    assert row.top1.mean == 0.9
    assert row.top1.sd is None
    assert row.top1.interval == wilson_interval(90, COUNT)
    assert row.top1.over == "images"


def test_seeds_far_apart_have_mean_deviation_and_the_interval_over_seeds() -> None:
    report = build_report([made(correct, seed=correct) for correct in (84, 80, 94)])
    (row,) = report.rows
    half = T_2 * statistics.stdev([0.8, 0.84, 0.94]) / 3**0.5
    assert row.seeds == (80, 84, 94)
    assert row.top1.mean == pytest.approx(0.86, abs=1e-12)
    assert row.top1.sd == pytest.approx(statistics.stdev([0.8, 0.84, 0.94]), abs=1e-12)
    assert row.top1.interval == pytest.approx((0.86 - half, 1.0), abs=1e-12)
    assert row.top1.over == "seeds"
    assert "86.00 ± 7.21" in text(report)


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("correct", [0, 50, 96, 100])
def test_equal_seeds_are_no_more_certain_than_their_images(seeds: int, correct: int) -> None:
    report = build_report([made(correct, seed=seed) for seed in range(seeds)])
    (row,) = report.rows
    assert row.top1.sd == 0
    assert row.top1.interval == wilson_interval(correct, COUNT)
    assert row.top1.over == "images"
    low, high = row.top1.interval
    assert f"| {correct}.00 ± 0.00 | {100 * low:.1f}–{100 * high:.1f} | images |" in text(report)


def test_the_teachers_equal_seeds_have_the_interval_over_images_too() -> None:
    (row,) = build_report([made(90, seed=s, teacher=scored(70)) for s in (0, 1)]).rows
    assert row.teacher_top1 is not None
    assert row.teacher_top1.interval == wilson_interval(70, COUNT)


@given(st.lists(st.integers(0, COUNT), min_size=2, max_size=5))
def test_an_interval_holds_its_mean_and_is_never_narrower_than_over_images(
    correct: list[int],
) -> None:
    top1 = estimate([scored(right) for right in correct])
    low, high = top1.interval
    assert 0 <= low <= top1.mean <= high <= 1
    images = wilson_interval(statistics.fmean(correct), COUNT)
    assert high - low >= images[1] - images[0]


def test_the_text_says_which_interval_is_meant() -> None:
    one, near = text(build_report([made()])), text(build_report([made(), made(seed=1)]))
    far = text(build_report([made(80), made(95, seed=1)]))
    for images in (one, near):
        assert "over images (Wilson's, at the mean)" in images
        assert "interval over seeds" not in images
    assert "over seeds (Student's, of the mean)" in far
    assert "interval over images" not in far
    assert "the wider of the two" not in one
    assert "the wider of the two" in near
    assert "| seeds | 2 |" in far


def test_a_seed_that_is_there_twice_counts_once_and_is_noted() -> None:
    early, late = made(90), made(80, finished="2026-01-02T00:00:00+00:00")
    report = build_report([late, early])
    assert report.rows[0].top1.mean == 0.8
    assert report.rows[0].seeds == (0,)
    assert any("seed 0 is there 2 times (top-1 80.00, 90.00 %)" in n for n in report.notes)


def test_a_run_and_its_evaluation_are_two_rows() -> None:
    evaluated = made(90, kind="eval", backbone_sha256={"student": "5" * 64})
    report = build_report([made(90), evaluated])
    assert labels(report) == [{"kind": "eval"}, {}]


def test_an_evaluated_teacher_is_named_and_has_no_gain() -> None:
    alone = made(80, toy_recipe(teacher=False), kind="eval")
    of_teacher = made(90, kind="eval", backbone_sha256={"teacher": "7" * 64})
    report = build_report([alone, of_teacher])
    assert {"kind": "eval", "network": "teacher"}.items() <= report.rows[1].label.items()
    assert report.gains == ()


def test_other_data_of_a_task_are_another_row_and_noted() -> None:
    report = build_report([made(90), made(80, seed=1, data_fingerprint="other")])
    assert [row.top1.mean for row in report.rows] == [0.9, 0.8]
    assert [label["data"] for label in labels(report)] == ["data of ", "other"]
    assert any("images or labels differ" in note for note in report.notes)


def test_the_teacher_has_its_own_number() -> None:
    taught, alone = made(90, teacher=scored(70)), made(80, toy_recipe(teacher=False))
    rows = build_report([taught, alone]).rows
    assert [row.teacher_top1 and row.teacher_top1.mean for row in rows] == [None, 0.7]


@pytest.mark.parametrize(
    ("number", "shown"), [(250, "250"), (18_432, "18.4 k"), (1_234_567, "1.23 M")]
)
def test_parameters_are_counted_in_thousands_and_millions(number: int, shown: str) -> None:
    assert as_count(number) == shown


# Selection and protocol


def test_imported_numbers_are_labelled_and_show_no_settings() -> None:
    theirs = toy_recipe(teacher=False, protocol="imported", lr=0.1, epochs=9)
    ours = toy_recipe(teacher=False, lr=0.2, epochs=7, options={"dropout": 0.3})
    report = build_report([made(90, theirs), made(80, ours)])
    shown = text(report)
    second, first = sorted(labels(report), key=lambda label: "protocol" in label)
    assert first["protocol"] == "imported"
    assert not first.keys() & {"lr", "epochs", "adapter.dropout"}
    assert "protocol" not in second
    assert "protocol imported: trained elsewhere, with settings that are not known." in shown
    assert "imported" not in text(build_report([made(80, ours)]))


def test_a_selection_says_what_was_chosen_among_how_many() -> None:
    recipe = toy_recipe(selection="val", candidates={"lr": (1e-3, 1e-2)})
    tried = tuple(Candidate(values={"lr": lr}, val_top1=lr) for lr in (1e-3, 1e-2))
    report = build_report([made(recipe=recipe, selection=Selection(tried=tried, chosen=1))])
    assert labels(report) == [{"selection": "val"}]
    assert "selection val: lr 0.01 was chosen on val200 among 2 candidates" in text(report)


def test_paper_numbers_are_labelled_even_where_all_are_paper() -> None:
    report = build_report([made(90, toy_recipe(protocol="paper"), top1_best_on_test=0.93)])
    shown = text(report)
    assert labels(report) == [{"protocol": "paper"}]
    assert "| top1_best_on_test % |" in shown
    assert "| 93.00 |" in shown
    assert "so optimistic" in shown
    assert "best_on_test" not in text(build_report([made(90)]))


# Raw-pixel baselines


@pytest.mark.parametrize(
    ("correct", "verdict"),
    [
        (
            50,
            "50.00 beats chance (10.00); is below raw-pixel logistic regression (96.00) and "
            "raw-pixel 1-nearest-neighbour (98.00)",
        ),
        (
            97,
            "97.00 beats chance (10.00); is above raw-pixel logistic regression (96.00), but "
            "cannot be told from it; is below raw-pixel 1-nearest-neighbour (98.00), but cannot be "
            "told from it",
        ),
        (
            98,
            "98.00 beats chance (10.00); is above raw-pixel logistic regression (96.00), but "
            "cannot be told from it; equals raw-pixel 1-nearest-neighbour (98.00) and cannot be "
            "told from it",
        ),
        (
            100,
            "100.00 beats chance (10.00) and raw-pixel logistic regression (96.00); is above "
            "raw-pixel 1-nearest-neighbour (98.00), but cannot be told from it",
        ),
    ],
)
def test_each_row_says_in_one_line_whether_it_beats_raw_pixels(correct: int, verdict: str) -> None:
    found = [
        made(correct, recipe, baselines=BASELINES)
        for recipe in (toy_recipe(), toy_recipe(teacher=False))
    ]
    lines = text(build_report(found)).splitlines()
    assert f"- digits, teacher none: {verdict}" in lines
    assert f"- digits, teacher toy_teacher: {verdict}" in lines


def test_baselines_that_differ_are_noted_and_the_higher_one_counts() -> None:
    found = [made(97, seed=s, baselines={"nearest_neighbour": 0.96 + s / 50}) for s in (0, 1)]
    report = build_report(found)
    chance, nearest = report.rows[0].baselines
    assert (chance.name, chance.top1) == ("chance", 0.1)
    assert nearest.top1 == 0.98
    assert not nearest.beaten
    assert any("nearest_neighbour differs" in note for note in report.notes)


def test_a_number_on_too_few_images_is_said_to_be() -> None:
    few = scored(2).model_copy(update={"count": 13, "top1": 2 / 13})
    report = build_report([made(top1=2 / 13, student=few)])
    assert report.rows[0].too_few_images
    assert "digits: rests on too few images: 13 for test" in text(report)
    assert not build_report([made(90)]).rows[0].too_few_images


def test_a_training_that_diverged_is_labelled() -> None:
    report = build_report([made(10), made(10, seed=1, diverged=True)])
    assert report.rows[0].diverged == (1,)
    assert "digits, seed 1: the training diverged" in text(report)


# Means


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


# The teacher's gain

ALONE, TAUGHT = toy_recipe(teacher=False), toy_recipe()
RIGHT_ALONE = [True] * 6 + [False] * 4
RIGHT_TAUGHT = [True] * 5 + [False] + [True] * 3 + [False]


def test_the_gain_is_paired_on_the_same_images(tmp_path: Path) -> None:
    found = [
        written(tmp_path / "alone", RIGHT_ALONE, ALONE),
        written(tmp_path / "taught", RIGHT_TAUGHT, TAUGHT),
    ]
    report = build_report(found)
    (gain,) = report.gains
    (seed,) = gain.seeds
    assert seed.gain == pytest.approx(0.2, abs=1e-12)
    assert (seed.gained, seed.lost, seed.images) == (3, 1, 10)
    assert seed.interval == paired_interval(3, 1, 10)
    assert gain.label == {"teacher": "toy_teacher"}
    assert gain.mean is None
    assert "| +20.00 |" in text(report)


def test_a_loss_keeps_its_sign(tmp_path: Path) -> None:
    found = [
        written(tmp_path / "alone", RIGHT_TAUGHT, ALONE),
        written(tmp_path / "taught", RIGHT_ALONE, TAUGHT),
    ]
    assert "| -20.00 |" in text(build_report(found))


def gains_of(tmp_path: Path, lost: int, gained: Sequence[int]) -> Report:
    """Runs on 20 images: the student alone is right about 10, with its teacher loses and gains."""
    found = []
    for seed, more in enumerate(gained):
        found.append(written(tmp_path / f"a{seed}", [True] * 10 + [False] * 10, ALONE, seed))
        right = [False] * lost + [True] * (10 - lost + more) + [False] * (10 - more)
        found.append(written(tmp_path / f"t{seed}", right, TAUGHT, seed))
    return build_report(found)


def test_over_seeds_far_apart_the_gain_has_a_mean_and_its_spread(tmp_path: Path) -> None:
    report = gains_of(tmp_path, 0, (0, 4, 8))
    (gain,) = report.gains
    half = T_2 * 0.2 / 3**0.5
    assert [seed.gain for seed in gain.seeds] == pytest.approx([0.0, 0.2, 0.4], abs=1e-12)
    assert gain.mean is not None
    assert gain.mean.gain == pytest.approx(0.2, abs=1e-12)
    assert gain.mean.sd == pytest.approx(0.2, abs=1e-12)
    assert gain.mean.interval == pytest.approx((0.2 - half, 0.2 + half), abs=1e-12)
    assert gain.mean.over == "seeds"
    assert "| mean | +20.00 ± 20.00 |" in text(report)
    assert "(3 seeds) |" in text(report)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (0, 2), (2, 2), (3, 1)])
def test_equal_gains_are_no_more_certain_than_their_images(
    tmp_path: Path, lost: int, gained: int
) -> None:
    report = gains_of(tmp_path, lost, (gained, gained))
    (gain,) = report.gains
    assert gain.mean is not None
    assert gain.mean.sd == 0
    assert gain.mean.interval == gain.seeds[0].interval == paired_interval(gained, lost, 20)
    assert gain.mean.over == "images"
    assert "(20 images) |" in text(report)


def test_equal_gains_that_are_not_paired_have_an_interval_too() -> None:
    found = [made(80, ALONE, seed=s) for s in (0, 1)] + [made(90, TAUGHT, seed=s) for s in (0, 1)]
    (gain,) = build_report(found).gains
    assert gain.mean is not None
    assert gain.mean.interval == pytest.approx(unpaired_interval(0.9, 0.8, COUNT), abs=1e-12)
    assert gain.mean.over == "images"


def assert_plain_difference(found: list[Found], reason: str) -> None:
    report = build_report(found)
    (seed,) = report.gains[0].seeds
    assert seed.interval == unpaired_interval(0.8, 0.6, COUNT)
    assert seed.gained is None
    assert seed.gain == pytest.approx(0.2, abs=1e-12)
    assert reason in seed.unpaired
    assert "not paired" in text(report)
    assert reason in text(report)


@pytest.mark.parametrize(("gone", "whose"), [("alone", "none"), ("taught", "toy_teacher")])
def test_without_predictions_the_difference_is_plain_and_says_so(
    tmp_path: Path, gone: str, whose: str
) -> None:
    found = [
        written(tmp_path / "alone", RIGHT_ALONE, ALONE),
        written(tmp_path / "taught", RIGHT_TAUGHT, TAUGHT),
    ]
    (tmp_path / gone / "predictions.safetensors").unlink()
    assert_plain_difference(found, f"run with teacher {whose} has no predictions.safetensors")


@pytest.mark.parametrize("name", ["index", "target"])
def test_other_test_images_are_not_paired(tmp_path: Path, name: str) -> None:
    found = [
        written(tmp_path / "alone", RIGHT_ALONE, ALONE),
        written(tmp_path / "taught", RIGHT_TAUGHT, TAUGHT),
    ]
    file = tmp_path / "alone" / "predictions.safetensors"
    tensors = files.parse_tensors(file.read_bytes())
    file.write_bytes(files.dump_tensors(tensors | {name: tensors[name].flip(0) + 1}))
    path, result = found[0]
    agreed = result.model_copy(update={"files": {file.name: files.sha256(file)}})
    assert_plain_difference([(path, agreed), found[1]], "tested on different images")


def test_predictions_that_the_result_does_not_name_are_not_used(tmp_path: Path) -> None:
    found = [
        written(tmp_path / "alone", RIGHT_ALONE, ALONE),
        written(tmp_path / "taught", RIGHT_TAUGHT, TAUGHT),
    ]
    file = tmp_path / "alone" / "predictions.safetensors"
    file.write_bytes(file.read_bytes() + b" ")
    assert_plain_difference(found, "not the one its result names")


def test_a_seed_that_one_side_lacks_is_left_out_and_said(tmp_path: Path) -> None:
    found = [
        written(tmp_path / "alone", RIGHT_ALONE, ALONE),
        written(tmp_path / "taught", RIGHT_TAUGHT, TAUGHT),
        written(tmp_path / "more", RIGHT_TAUGHT, TAUGHT, seed=1),
    ]
    report = build_report(found)
    assert [seed.seed for seed in report.gains[0].seeds] == [0]
    assert report.gains[0].alone_in == (1,)
    assert "seed 1 is left out" in text(report)


@pytest.mark.parametrize(
    "changes",
    [{"lr": 1e-2}, {"adapter": "sequential"}, {"options": {"rank": 4}}, {"epochs": 5}],
)
def test_recipes_that_differ_in_more_than_the_teacher_have_no_gain(changes: dict[str, Any]) -> None:
    found = [made(80, ALONE), made(90, toy_recipe(**changes))]
    assert build_report(found).gains == ()


def test_every_kind_of_teacher_is_compared_with_the_student_alone() -> None:
    renamed = TAUGHT.pair.model_copy(update={"name": "renamed"})
    linear = TAUGHT.adapter.model_copy(update={"name": "linear"})
    taught = [
        TAUGHT,
        toy_recipe(distillation="kl", temperature=2.0),
        toy_recipe(distillation="none"),
        toy_recipe(detach="teacher", distillation_weight=0.5),
        TAUGHT.model_copy(update={"pair": renamed}),
        TAUGHT.model_copy(update={"teacher_adapter": linear}),
    ]
    report = build_report([made(80, ALONE), *(made(90, recipe) for recipe in taught)])
    assert len(report.gains) == len(taught)
    assert {gain.seeds[0].gain for gain in report.gains} == {0.9 - 0.8}


# What does not compare


def backbone_weights(recipe: Recipe, weights: str) -> Recipe:
    student = recipe.pair.student.model_copy(update={"weights": weights})
    return recipe.model_copy(update={"pair": recipe.pair.model_copy(update={"student": student})})


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"device": "NVIDIA H100"}, "digits: devices differ (NVIDIA H100; cpu, 1 thread)"),
        ({"versions": {"torch": "2.7"}}, "digits: versions of torch differ (2.6; 2.7)"),
        (
            {"recipe": backbone_weights(TAUGHT, "orig_in21k")},
            "digits: students' weights differ (toy_student orig_in21k; toy_student random)",
        ),
        (
            {"backbone_sha256": {"student": "6" * 64}},
            "digits: the weights called toy_student random are not the same bytes "
            "(55555555; 66666666)",
        ),
    ],
)
def test_uneven_comparisons_are_pointed_out(other: dict[str, Any], said: str) -> None:
    report = build_report([made(90), made(80, **({"seed": 1} | other))])
    assert said in report.notes
    assert said in text(report)


def test_uneven_means_are_pointed_out() -> None:
    found = [made(90, on_task("dtd")), made(80, on_task("svhn"), device="NVIDIA H100")]
    said = "the means over VTAB-1K: devices differ (NVIDIA H100; cpu, 1 thread)"
    assert build_report(found).notes == (said,)


def test_images_that_a_number_does_not_rest_on_as_it_should_are_noted() -> None:
    counts = ImageCounts(train=800, val=200, test=1880)
    odd = counts.model_copy(update={"unreadable": 3, "test_in_training": 12})
    report = build_report([made(seed=s, images=odd) for s in (0, 1)])
    assert report.notes == (
        "digits: 3 of its images cannot be read and were left out",
        "digits: 12 of 1,880 test images have the same bytes as an image that was learnt from",
    )
    assert all(note in text(report) for note in report.notes)
    assert build_report([made(images=counts)]).notes == ()


def test_even_comparisons_have_no_notes() -> None:
    report = build_report([made(90), made(80, seed=1), made(70, on_task("dtd"), device="other")])
    assert report.notes == ()


# How it is shown


def test_long_labels_become_numbers_with_a_key() -> None:
    report = build_report([made(90), made(80, ALONE)])
    in_words, numbered = lay_out(report, label_width=19), lay_out(report, label_width=18)
    assert [row[1] for row in in_words[1].rows] == ["teacher none", "teacher toy_teacher"]
    assert [row[1] for row in numbered[1].rows] == ["R1", "R2"]
    assert numbered[0].lines[-2:] == ("R1: teacher none", "R2: teacher toy_teacher")


def test_columns_without_values_are_left_out() -> None:
    columns = lay_out(build_report([made(90)]))[1].columns
    assert columns == ("task", "top-1 %", "interval", "seeds", "parameters")


def test_markdown_keeps_a_pipe_inside_its_cell() -> None:
    assert markdown_table(["a"], [["x|y"]]) == "| a |\n| --- |\n| x\\|y |"


def test_the_order_of_the_paths_does_not_matter() -> None:
    found = [made(90, on_task("svhn")), made(80), made(70, on_task("dtd"))]
    assert build_report(found) == build_report(found[::-1])
    assert [row.task for row in build_report(found).rows] == ["digits", "dtd", "svhn"]


# The command


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real runs: with and without the teacher."""
    out = tmp_path_factory.mktemp("runs")
    for recipe in (ALONE, TAUGHT):
        run(recipe, out=out, device="cpu")
    return out


def idat(*words: str) -> Outcome:
    return CliRunner().invoke(app, ["report", *words])


def test_real_runs_are_reported_with_baselines_and_paired_gain(runs: Path) -> None:
    outcome = idat(str(runs))
    assert outcome.exit_code == 0, outcome.output
    assert "2 results, 2 recipes" in outcome.stdout
    assert "raw-pixel logistic regression (96.24)" in outcome.stdout
    assert "(paired, 797 images)" in outcome.stdout
    assert outcome.stderr == ""


def test_json_is_the_report_in_one_document(runs: Path) -> None:
    outcome = idat(str(runs), "--json")
    document = json.loads(outcome.stdout)
    assert document.pop("schema_version") == 1
    expected = build_report(find_results([runs])).model_dump(mode="json", exclude_none=True)
    assert document == {"report": expected}


def test_results_are_taken_file_by_file_too(runs: Path) -> None:
    paths = [str(path) for path in runs.rglob("result.json")]
    assert idat(*paths, "--json").stdout == idat(str(runs), "--json").stdout


def test_out_writes_what_format_markdown_prints(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.md"
    outcome = idat(str(runs), "--format", "markdown", "--out", str(file))
    assert file.read_text() == outcome.stdout
    assert outcome.stderr == f"wrote {file}\n"


def test_out_replaces_a_report_and_nothing_else(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.md"
    idat(str(runs), "--out", str(file))
    assert idat(str(runs), "--out", str(file)).exit_code == 0
    file.write_text("# By hand\n")
    outcome = idat(str(runs), "--out", str(file))
    assert outcome.exit_code == 2
    assert "is there, and is no report" in outcome.stderr
    assert file.read_text() == "# By hand\n"


def test_json_and_format_exclude_each_other(runs: Path) -> None:
    outcome = idat(str(runs), "--json", "--format", "table")
    assert outcome.exit_code == 2
    assert "--json and --format exclude each other" in outcome.stderr


def test_a_folder_without_results_is_one_clear_line(tmp_path: Path) -> None:
    outcome = idat(str(tmp_path))
    assert outcome.exit_code == 1
    assert outcome.stderr == f"error: no result.json in {tmp_path}.\n"


def test_out_in_a_place_that_cannot_be_written_is_one_clear_line(
    runs: Path, tmp_path: Path
) -> None:
    outcome = idat(str(runs), "--out", str(tmp_path))
    assert outcome.exit_code == 1
    assert outcome.stderr.startswith("error: cannot write")
    assert "--resume" not in outcome.stderr


# One result, for a person in Python


def test_a_result_prints_as_a_few_lines_and_its_repr_is_short() -> None:
    pair = toy_recipe().pair
    assert pair.teacher is not None
    odd = pair.model_copy(update={"teacher": pair.teacher.model_copy(update={"name": "[/b]toy"})})
    recipe = toy_recipe().model_copy(update={"pair": odd})
    _, result = made(recipe=recipe, baselines=BASELINES, teacher=scored(80))
    lines = str(result).splitlines()
    assert lines[0] == (
        "toy/lora/digits with [/b]toy, seed 0: top-1 90.0 % [82.6, 94.5] on 100 test images"
    )
    assert "raw-pixel logistic regression (96.0 %)" in lines[1]
    assert lines[2].startswith("  teacher 80.0 %")
    console = Console(file=io.StringIO(), width=200)
    console.print(result)
    assert console.file.getvalue().splitlines() == lines  # type: ignore[attr-defined]
    assert len(repr(result)) < 200
    assert "toy/lora/digits" in repr(result)
