"""Reports: their rows, what sets them apart, and how each number is shown."""

import io
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import (
    ALONE,
    BASELINES,
    COUNT,
    T_2,
    build_report,
    labels,
    made,
    on_task,
    scored,
    text,
)
from rich.console import Console

from conftest import toy_recipe
from idat_zoo.adapters import ADAPTERS
from idat_zoo.intervals import wilson_interval
from idat_zoo.registry import load_registry
from idat_zoo.report.cells import as_count
from idat_zoo.report.fields import flatten
from idat_zoo.report.layout import lay_out
from idat_zoo.report.markdown import markdown_table
from idat_zoo.report.rows import estimate
from idat_zoo.results import Candidate, Selection


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


def test_the_registry_reads_options_as_the_classes_do_and_in_their_order() -> None:
    registry = load_registry()
    for family in ADAPTERS:
        in_blocks = "blocks" in registry.find_adapter(family).options
        for options in ({}, {"blocks": "last1"}) if in_blocks else ({},):
            result = made(recipe=toy_recipe(family, options=options))[1]
            light = flatten(result, registry.read_options)
            assert list(light.items()) == list(flatten(result).items()), family


def test_fields_that_do_not_act_are_left_out() -> None:
    alone = flatten(made(recipe=toy_recipe(teacher=False))[1])
    assert alone["teacher"] == "none"
    assert not {"distillation", "detach", "teacher_adapter"} & alone.keys()
    assert "distillation.temperature" not in alone
    assert "distillation.temperature" in flatten(made(recipe=toy_recipe(distillation="kl"))[1])


def test_what_candidates_choose_is_not_shown_as_the_recipes() -> None:
    recipe = toy_recipe(selection="val", candidates={"lr": (1e-3, 1e-2)})
    fields = flatten(made(recipe=recipe)[1])
    assert "lr" not in fields
    assert fields["candidates"] == "lr=[0.001, 0.01]"


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
            "97.00 beats chance (10.00); is too close to call against raw-pixel logistic "
            "regression (96.00) and raw-pixel 1-nearest-neighbour (98.00), which are in its 95 % "
            "interval",
        ),
        (
            100,
            "100.00 beats chance (10.00) and raw-pixel logistic regression (96.00); is too close "
            "to call against raw-pixel 1-nearest-neighbour (98.00), which is in its 95 % interval",
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


def test_the_three_selections_never_share_a_row_or_a_mean() -> None:
    tried = {
        "val": tuple(Candidate(values={"lr": lr}, val_top1=lr) for lr in (1e-3, 1e-2)),
        "ensemble": tuple(Candidate(values={"lr": lr}) for lr in (1e-3, 1e-2)),
    }
    results = [made(90, toy_recipe(lr=1e-2), seed=seed) for seed in (0, 1)]
    for mode, chosen in (("val", 1), ("ensemble", None)):
        recipe = toy_recipe(selection=mode, candidates={"lr": (1e-3, 1e-2)})
        selection = Selection(mode=mode, tried=tried[mode], chosen=chosen)
        results += [made(80, recipe, seed=seed, selection=selection) for seed in (0, 1)]
    report = build_report(results)
    assert sorted(map(str, labels(report))) == [
        "{'selection': 'ensemble'}",
        "{'selection': 'val'}",
        "{}",
    ]
    assert [row.seeds for row in report.rows] == [(0, 1)] * 3
    shown = text(report)
    assert "selection ensemble: ensemble of 2: lr 0.001; lr 0.01" in shown
    assert "selection ensemble: the mean of the softmaxes of all candidates" in shown
    alone = build_report([one for one in results if one[1].recipe.selection == "ensemble"])
    assert labels(alone) == [{"selection": "ensemble"}]
    assert "chosen on val200" not in text(alone)
