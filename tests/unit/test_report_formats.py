"""Reports as CSV and as LaTeX: the same numbers, and text that other programs take."""

import csv
import io
import re
from pathlib import Path

import pytest
from latex import compiled
from made_results import (
    ALONE,
    BASELINES,
    MINI,
    TAUGHT,
    VTAB_1K,
    build_report,
    made,
    on_task,
    scored,
    written,
)

from conftest import toy_recipe
from idat_zoo.report.build import Report
from idat_zoo.report.cells import as_words
from idat_zoo.report.csv_rows import COLUMNS, as_csv
from idat_zoo.report.latex import as_latex, escaped

DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs,graphicx}
\begin{document}
%s
\end{document}
"""
NASTY = r"50 % & $x_1^2$ #{a} ~\b<|> → é 猫"


@pytest.fixture(scope="module")
def report() -> Report:
    """A method on all tasks of the mini suite, another on some, and a task of no suite."""
    found = [
        made(80 + n, on_task(task), seed=s) for n, task in enumerate(MINI.tasks) for s in (0, 1)
    ]
    found += [made(60, on_task(task, teacher=False)) for task in MINI.tasks[:3]]
    alone = toy_recipe(teacher=False)
    other = alone.model_copy(update={"task": alone.task.model_copy(update={"id": "my_own"})})
    return build_report([*found, made(50, other, baselines=BASELINES)])


def lines(report: Report) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(as_csv(report))))


def test_csv_has_one_line_for_each_task_method_and_metric(report: Report) -> None:
    found = lines(report)
    keys = [(line["task"], line["method"], line["metric"]) for line in found]
    assert len(keys) == len(set(keys))
    for row in report.rows:
        own = {line["metric"] for line in found if line["recipe_hash"] == row.recipe_hash}
        named = {baseline.name for baseline in row.baselines}
        assert own - {"gain"} == {"top1", "adapter_parameters", "head_parameters", *named}


def test_csv_holds_the_numbers_of_the_report_to_the_last_bit(report: Report) -> None:
    found = {(one["task"], one["method"]): one for one in lines(report) if one["metric"] == "top1"}
    assert len(found) == len(report.rows)
    for row in report.rows:
        line = found[row.task, as_words(row.label)]
        assert float(line["value"]) == row.top1.mean
        assert (float(line["low"]), float(line["high"])) == row.top1.interval
        assert line["over"] == row.top1.over
        assert line["sd"] == ("" if row.top1.sd is None else repr(row.top1.sd))
        assert tuple(map(int, line["seeds"].split())) == row.seeds
        assert line["recipe_hash"] == row.recipe_hash
        assert (line["weights"], line["selection"]) == ("toy_student random", "last")
    assert set(lines(report)[0]) == set(COLUMNS)


def test_csv_has_the_teacher_and_the_gain_beside_the_row_that_it_is_of(tmp_path: Path) -> None:
    right = [True] * 90 + [False] * 10
    found = [written(tmp_path / "alone", [*right[10:], *right[:10]], ALONE)]
    path, taught = written(tmp_path / "taught", right, TAUGHT)
    found.append((path, taught.model_copy(update={"teacher": scored(70)})))
    report = build_report(found)
    own = {one["metric"]: one for one in lines(report) if "toy_teacher" in one["method"]}
    assert float(own["teacher_top1"]["value"]) == 0.7
    (gain,) = report.gains
    assert float(own["gain"]["value"]) == gain.seeds[0].gain
    assert (float(own["gain"]["low"]), float(own["gain"]["high"])) == gain.seeds[0].interval
    assert own["gain"]["images"] == "100"
    assert [one["method"] for one in lines(report) if one["metric"] == "gain"] == [
        own["top1"]["method"]
    ]


def test_latex_has_methods_in_rows_tasks_and_means_in_columns(report: Report) -> None:
    suite, others = as_latex(report).split(r"\end{table}")[:2]
    head = next(line for line in suite.splitlines() if line.startswith("method"))
    columns = re.findall(r"\\rotatebox\{90\}\{(.*?)\}", head)
    groups = ["natural", "specialized", "structured"]
    named = ["mean6", "mean3", "mean of 3 tasks"]
    assert columns == [escaped(name) for name in (*MINI.tasks, *groups, *named)]
    cells = {
        line.split(" & ")[0]: line.removesuffix(r" \\").split(" & ")[1:]
        for line in suite.splitlines()
        if line.startswith("teacher")
    }
    bare = [
        re.sub(r"\\textsuperscript\{.*?\}", "", cell) for cell in cells[r"teacher toy\_teacher"]
    ]
    assert bare[:6] == [f"{80 + n}.00" for n in range(6)]
    assert bare[6:9] == ["80.50", "82.00", "84.00"]
    assert bare[9:] == ["82.50", "82.17", "--"]
    assert cells["teacher none"][3:6] == ["--"] * 3
    assert cells["teacher none"][-1] == "60.00 (3/6)"
    assert "mean6 is over the 6 tasks, mean3 over the three group means" in suite
    assert r"\rotatebox{90}{my\_own}" in others
    assert "50.00" in others


def test_latex_explains_each_mark_once_below_the_table(report: Report) -> None:
    suite = as_latex(report).split(r"\end{table}")[0]
    assert suite.count(r"seeds 0, 1 (others: 0)") <= 1
    letters = set(re.findall(r"\d\\textsuperscript\{(\w)\}", suite))
    below = suite.split(r"\end{tabular}")[1]
    assert letters
    assert set(re.findall(r"\\textsuperscript\{(\w)\}", below)) == letters


def test_latex_escapes_what_it_would_read_as_commands() -> None:
    assert escaped(NASTY) == (
        r"50 \% \& \$x\_1\textasciicircum{}2\$ \#\{a\} \textasciitilde{}\textbackslash{}b"
        r"\textless{}\textbar{}\textgreater{} $\rightarrow$ é [U+732B]"
    )


@pytest.mark.slow
def test_latex_compiles(report: Report, pdflatex: None, tmp_path: Path) -> None:
    wide = as_latex(build_report([made(50, on_task(task)) for task in VTAB_1K.tasks]))
    log = compiled(DOCUMENT % (as_latex(report) + wide + escaped(NASTY)), tmp_path)
    assert "Missing character" not in log
    assert "undefined" not in log
    assert "Overfull" not in log
