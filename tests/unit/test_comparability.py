"""Rows that do not compare are marked, with what differs, as data and in every format."""

import csv
import io
from typing import Any

import pytest
from made_results import ALONE, COUNT, TAUGHT, build_report, made, on_task, text
from test_gain import backbone_weights

from conftest import toy_recipe
from idat_zoo.report.basis import Mark
from idat_zoo.report.build import Report
from idat_zoo.report.csv_rows import as_csv
from idat_zoo.report.latex import as_latex
from idat_zoo.results import Candidate, Selection

TRIED = tuple(Candidate(values={"lr": lr}, val_top1=0.5) for lr in (1e-3, 1e-2, 1e-1))
VAL: dict[str, Any] = {"selection": "val", "candidates": {"lr": (1e-3, 1e-2, 1e-1)}}
USUAL = "toy_student random"
ODD: dict[str, tuple[dict[str, Any], list[Mark]]] = {
    "weights": (
        {"recipe": backbone_weights(ALONE, "orig_in21k")},
        [Mark(what="weights", own="toy_student orig_in21k", others=(USUAL,))],
    ),
    "normalisation": (
        {"recipe": toy_recipe(teacher=False, normalisation="none")},
        [Mark(what="normalisation", own="none", others=("0.5",))],
    ),
    "data": (
        {"recipe": ALONE, "data_fingerprint": "another one"},
        [Mark(what="data", own="another ", others=("data of ",))],
    ),
    "selection": (
        {
            "recipe": toy_recipe(teacher=False, **VAL),
            "selection": Selection(tried=TRIED, chosen=1),
        },
        [
            Mark(what="selection", own="val", others=("last",)),
            Mark(what="tried settings", own="3", others=("1",)),
        ],
    ),
    "seeds": (
        {"recipe": toy_recipe(teacher=False, lr=0.1), "seed": 7},
        [Mark(what="seeds", own="7", others=("0",))],
    ),
    "schema": (
        {"recipe": toy_recipe(teacher=False, lr=0.1), "schema_version": 0},
        [Mark(what="schema", own="0", others=("1",))],
    ),
}


def mixed(odd: dict[str, Any]) -> Report:
    """Three rows that rest on the same, and a fourth that does not."""
    usual = [made(80, recipe) for recipe in (TAUGHT, ALONE, toy_recipe(teacher=False, epochs=3))]
    return build_report([*usual, made(90, **odd)])


@pytest.mark.parametrize("name", ODD)
def test_the_one_row_that_differs_is_marked_with_both_values(name: str) -> None:
    odd, marks = ODD[name]
    report = mixed(odd)
    found = {row.top1.mean: list(row.marks) for row in report.rows}
    assert found == {0.9: marks, 0.8: []}
    assert [row.top1.mean for row in report.rows].count(0.8) == 3


@pytest.mark.parametrize("name", ODD)
def test_every_format_shows_the_marks_of_the_row(name: str) -> None:
    odd, marks = ODD[name]
    report = mixed(odd)
    (line,) = [line for line in text(report).splitlines() if "| 90.00 |" in line]
    assert line.endswith(f"| {', '.join('abc'[: len(marks)])} |")
    for letter, mark in zip("abc", marks, strict=False):
        assert f"\n- {letter}: {mark}.\n" in text(report)
    for mark in marks:
        values = {mark.own, *mark.others}
        assert any(all(value in note for value in values) for note in report.notes)
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    said = {row["differs_in"] for row in rows if row["metric"] == "top1" and row["value"] == "0.9"}
    assert said == {"; ".join(map(str, marks))}
    assert "90.00\\textsuperscript{" in as_latex(report)
    assert "80.00\\textsuperscript{" not in as_latex(report)


def test_rows_that_rest_on_the_same_have_no_marks() -> None:
    report = build_report([made(80, recipe) for recipe in (TAUGHT, ALONE)])
    assert [row.marks for row in report.rows] == [(), ()]
    assert report.notes == ()
    assert "differs in" not in text(report)


def test_without_a_usual_value_all_rows_are_marked() -> None:
    report = build_report([made(80, ALONE), made(90, TAUGHT, seed=1)])
    assert {row.top1.mean: row.marks for row in report.rows} == {
        0.8: (Mark(what="seeds", own="0", others=("1",)),),
        0.9: (Mark(what="seeds", own="1", others=("0",)),),
    }


def test_rows_of_other_tasks_are_compared_where_they_enter_one_mean() -> None:
    apart = [made(80, on_task("dtd")), made(70, on_task("count"), seed=1)]
    assert all(not row.marks for row in build_report(apart).rows)
    together = build_report([made(80, on_task("dtd")), made(70, on_task("svhn"), seed=1)])
    assert [[mark.what for mark in row.marks] for row in together.rows] == [["seeds"], ["seeds"]]
    assert "the means over VTAB-1K: seeds differ (0; 1)" in together.notes


def test_a_row_says_what_it_rests_on() -> None:
    (row,) = build_report([made(80, seed=seed) for seed in (0, 2)]).rows
    assert row.basis.model_dump() == {
        "weights": USUAL,
        "normalisation": "0.5",
        "data": "data of ",
        "selection": "last",
        "tried": 1,
        "seeds": (0, 2),
        "schemas": (1,),
    }
    assert row.images == COUNT
