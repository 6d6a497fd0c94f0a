"""The HTML page of a report: its numbers, its figures, and what it asks for."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from command import idat
from made_results import AVERAGED, made, on_task, scored
from page_of_inverse import MSE, RESULTS, entries_of, inverse, page
from PIL import Image

from conftest import toy_recipe
from idat_zoo.errors import UsageError
from idat_zoo.metrics import ClassScore
from idat_zoo.page.contrast import Contrasts
from idat_zoo.page.costs import build_costs, build_spreads
from idat_zoo.page.details import build_details
from idat_zoo.page.entries import Entry
from idat_zoo.page.figures import VARIABLES
from idat_zoo.page.gains import reference_forests, teacher_forests
from idat_zoo.page.headline import headline
from idat_zoo.page.heat import build_heat
from idat_zoo.page.together import build_together
from idat_zoo.page.watched import build_watched
from idat_zoo.page.write import build_page, schemes
from idat_zoo.results import find_results

# The methods and their scores


def test_methods_are_named_by_what_tells_them_apart() -> None:
    _, _, entries = inverse()
    names = list(dict.fromkeys(entry.method for entry in entries))
    assert len(names) == 16
    assert {MSE, "lora, alone", "lora, alone, epochs 25", "lora, alone, adapter.rank 13"} <= {
        *names
    }
    assert "lora, with micro_teacher, mse, distillation_until teacher" in names
    tasks = {name: {entry.task for entry in entries if entry.method == name} for name in names}
    assert {len(own) for own in tasks.values()} == {3, 6}


def test_the_only_method_has_a_name() -> None:
    _, _, entries = entries_of([made(90), made(80, seed=1)])
    assert [entry.method for entry in entries] == ["the recipe"]


def test_the_heat_table_has_the_numbers_of_the_report() -> None:
    report, _, entries = inverse()
    heat = build_heat(entries, report.means, Contrasts(entries))
    by_name = {method.name: method for method in heat.methods}
    for entry in entries:
        cell = by_name[entry.method].cells[entry.task]
        assert (cell.top1, cell.low, cell.high) == (entry.row.top1.mean, *entry.row.top1.interval)
        chance = heat.chance[entry.task]
        assert cell.shade == pytest.approx((cell.top1 - chance) / (1 - chance))
    assert heat.means == (
        "natural",
        "specialized",
        "mean of 3 tasks",
        "structured",
        "mean6",
        "mean3",
    )
    assert by_name[MSE].means["mean6"] == pytest.approx(0.7520, abs=5e-5)
    assert heat.raw_pixels["digits"] == pytest.approx(0.9862, abs=5e-5)
    assert heat.unpaired == ()


def test_what_leads_a_task_cannot_be_told_from_the_best() -> None:
    report, _, entries = inverse()
    heat = build_heat(entries, report.means, Contrasts(entries))
    for task in heat.tasks:
        own = [entry for entry in entries if entry.task == task]
        best = max(own, key=lambda entry: entry.row.top1.mean)
        leading = {m.name for m in heat.methods if task in m.cells and m.cells[task].leads}
        assert best.method in leading
        for entry in own:
            if entry is not best:
                found = Contrasts(entries).between(best.method, entry.method)[task]
                assert found.paired
                assert (entry.method in leading) == (not found.is_told)


def test_results_without_predictions_are_compared_as_two_means() -> None:
    two = [made(90, toy_recipe("lora")), made(70, toy_recipe("linear"))]
    report, _, entries = entries_of(two)
    heat = build_heat(entries, report.means, Contrasts(entries))
    assert heat.unpaired == (entries[0].task,)
    assert [next(iter(method.cells.values())).leads for method in heat.methods] == [
        entry.row.top1.mean == 0.9 for entry in entries
    ]


# The gains


def test_a_forest_has_the_gains_of_the_report_and_their_mean() -> None:
    report, _, entries = inverse()
    forests = {own.method: own for own in teacher_forests(entries, report.gains)}
    forest = forests[MSE]
    assert [line.task for line in forest.lines] == ["digits", "textures", "lesions"]
    gains = {gain.task: gain.mean for gain in report.gains if entries[gain.row].method == MSE}
    for line in forest.lines:
        mean = gains[line.task]
        assert mean is not None
        assert (line.gain, line.low, line.high) == (mean.gain, *mean.interval)
    assert forest.mean is not None
    assert forest.mean.gain == pytest.approx(sum(line.gain for line in forest.lines) / 3)
    assert [forest.count(kind) for kind in ("win", "tie", "loss")] == [2, 1, 0]
    assert "+3.05 points of top-1" in headline(
        build_heat(entries, report.means, Contrasts(entries)),
        list(forests.values()),
        over="over it",
    )


def test_gains_over_a_chosen_method() -> None:
    _, groups, entries = inverse()
    forests = {
        own.method: own for own in reference_forests(entries, Contrasts(entries), "lora, alone")
    }
    assert "lora, alone" not in forests
    (same,) = [line for line in forests[MSE].lines if line.task == "lesions"]
    assert same.gain == pytest.approx(0.0460, abs=5e-5)
    coupled = {
        own.method: own
        for own in reference_forests(
            entries, Contrasts(entries), "lora, with micro_teacher, no distillation"
        )
    }
    (line,) = [line for line in coupled[MSE].lines if line.task == "textures"]
    shown = [f"{100 * value:+.2f}" for value in (line.gain, line.low, line.high)]
    study = (Path(__file__).parents[2] / "docs/inverse.md").read_text()
    assert f"| lora | mse | textures | {shown[0]} | {shown[1]} to {shown[2]} |" in study
    report = inverse()[0]
    with pytest.raises(UsageError, match="this report has no method 'lora alone'") as error:
        build_page(report, groups, reference="lora alone")
    assert "; lora, alone; " in error.value.hint


def test_without_gains_the_headline_is_the_best_mean_or_number() -> None:
    report, _, entries = entries_of([made(90), made(80, seed=1)])
    said = headline(build_heat(entries, report.means, Contrasts(entries)), [], over="")
    assert said.startswith("the recipe reaches 85.00 % of top-1 on ")
    assert said.endswith(f" % interval {interval_of(entries[0])}, over seeds).")
    mini = [made(60, on_task(task)) for task in ("digits", "textures", "lesions")]
    report, _, entries = entries_of(mini)
    said = headline(build_heat(entries, report.means, Contrasts(entries)), [], over="")
    assert said == "the recipe reaches 60.00 % of top-1 on mean of 3 tasks."


def interval_of(entry: Entry) -> str:
    low, high = entry.row.top1.interval
    return f"{100 * low:.2f} to {100 * high:.2f}"


# Costs, details, ensembles


def test_costs_are_means_over_the_runs_of_a_method() -> None:
    _, _, entries = inverse()
    (cost,) = [cost for cost in build_costs(entries) if cost.method == MSE]
    runs = [r for e in entries if e.method == MSE for _, r in e.group.results]
    assert len(runs) == 18
    assert cost.minutes == pytest.approx(sum(run.seconds for run in runs) / 18 / 60)
    assert (cost.tasks, cost.parameters) == (6, 16384)
    spreads = {one.task: one for one in build_spreads([entry.row for entry in entries])}
    assert spreads["digits"].count == 16
    assert spreads["digits"].seeds == pytest.approx(
        (sum((e.row.top1.sd or 0) ** 2 for e in entries if e.task == "digits") / 16) ** 0.5
    )


def test_details_are_of_the_best_method_of_a_task() -> None:
    _, _, entries = inverse()
    details = {one.task: one for one in build_details(entries)}
    digits = details["digits"]
    best = max((e for e in entries if e.task == "digits"), key=lambda e: e.row.top1.mean)
    assert digits.method == best.method
    assert digits.matrix is not None
    assert sum(map(sum, digits.matrix)) == 3 * 797
    right = sum(digits.matrix[k][k] for k in range(10))
    assert right / (3 * 797) == pytest.approx(best.row.top1.mean)
    assert sum(one.images for one in digits.recalls) == 797
    assert digits.reliability == ()  # classes are kept, and no logits
    (agreement,) = [one for one in details["lesions"].agreements if one.method == MSE]
    whole = agreement.both + agreement.student_only + agreement.teacher_only + agreement.neither
    assert whole == pytest.approx(1)
    (student,) = [e.row for e in entries if e.method == MSE and e.task == "lesions"]
    assert agreement.both + agreement.student_only == pytest.approx(student.top1.mean)


def test_reliability_has_the_calibration_error_of_the_result() -> None:
    _, _, entries = entries_of(find_results([RESULTS / "digits"])[:1])
    (detail,) = build_details(entries)
    total = sum(one.count for one in detail.reliability)
    gaps = [one.count * abs(one.accuracy - one.confidence) for one in detail.reliability]
    assert total == 797
    assert sum(gaps) / total == pytest.approx(detail.calibration_error, abs=1e-6)


def test_a_result_without_tables_by_class_has_a_page() -> None:
    found = [made(90), made(80, seed=1)]
    report, groups, _ = entries_of(found)
    assert "85.00" in build_page(report, groups).render(title="A report")


def test_both_networks_together_stand_beside_each() -> None:
    _, _, entries = inverse()
    rows = {(one.task, one.method): one for one in build_together(entries)}
    one = rows["lesions", "lora, with micro_teacher, no distillation"]
    assert one.kind == "trained beside, no coupling"
    assert one.teacher is not None
    assert one.ensemble is not None
    assert one.ensemble - one.student == pytest.approx(0.0357, abs=5e-5)
    assert ("lesions", "lora, alone") not in rows


def test_what_selecting_on_test_adds_is_read_from_logs(tmp_path: Path) -> None:
    words = ("epochs=3", "warmup_epochs=0", "watch=test", "--pair", "tiny_random")
    done = idat(
        *("train", "--task", "digits", "--adapter", "linear", "--device", "cpu"),
        *("--teacher", "none", "--out", str(tmp_path / "runs"), *words),
    )
    assert done.exit_code == 0, done.stderr
    _, _, entries = entries_of(find_results([tmp_path / "runs"]))
    (watched,) = build_watched(entries)
    (log,) = tmp_path.rglob("log.jsonl")
    tops = [json.loads(line)["test_top1"] for line in log.read_text().splitlines()]
    assert (watched.last, watched.best) == (tops[-1], max(tops))
    assert watched.last == entries[0].row.top1.mean
    (detail,) = build_details(entries)
    assert [len(own) for _, own in detail.curves] == [3]
    log.write_text(log.read_text().replace("0.", "9."))
    assert build_watched(entries) == []  # not the log that the result names


# The page


def test_the_page_is_the_same_each_time_and_asks_for_nothing() -> None:
    report, groups, _ = inverse()
    again = build_page(report, groups).render(title="A report", downloads={"a.json": '{"a": 1}'})
    assert page() == again
    links = re.findall(r'(?:src|href)="([^"]+)"', page())
    assert {link[:1] for link in links if not link.startswith("data:")} == {"#"}
    (link,) = [link for link in links if link.startswith("data:")]
    assert json.loads(base64.b64decode(link.partition(",")[2])) == {"a": 1}
    assert {own.partition("/")[0] for own in re.findall(r"https?://([^\"]+)", page())} == {
        "www.w3.org"
    }


def test_ids_on_the_page_are_unique() -> None:
    ids = re.findall(r'\sid="([^"]+)"', page())
    assert len(ids) > 100
    assert len(ids) == len(set(ids))


def test_names_cannot_be_read_as_html() -> None:
    name = "<script>alert(1)</script>"
    recipe = toy_recipe()
    pair = recipe.pair.model_copy(
        update={"student": recipe.pair.student.model_copy(update={"name": name})}
    )
    found = [made(90, recipe.model_copy(update={"pair": pair}), data_copy=name)]
    report, groups, _ = entries_of(found)
    text = build_page(report, groups).render(title=name)
    assert name not in text
    assert "&lt;script&gt;" in text


def test_the_command_writes_the_page_and_keeps_what_is_no_report(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    words = ("report", str(RESULTS / "digits"), "--html", str(file))
    for _ in range(2):
        done = idat(*words)
        assert done.exit_code == 0, done.stderr
        assert f"wrote {file}" in done.stderr.replace("\n", "")
    assert "Report on " in file.read_text()
    file.write_text("my own page")
    done = idat(*words)
    assert done.exit_code == 2
    assert "is there, and is no report." in done.stderr.replace("\n", " ")
    assert file.read_text() == "my own page"
    done = idat("report", str(RESULTS / "digits"), "--reference", "lora")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--reference belongs to --html" in done.stderr


def test_figures_are_written_as_png_in_the_colours_of_a_light_page(tmp_path: Path) -> None:
    page, folder = tmp_path / "report.html", tmp_path / "figures"
    done = idat("report", str(RESULTS / "digits"), "--html", str(page), "--png", str(folder))
    assert done.exit_code == 0, done.stderr
    names = {file.stem for file in folder.iterdir()}
    assert names == {"gains-0", "cost-parameters", "cost-minutes", "reliability-0"}
    pixels = np.asarray(Image.open(folder / "gains-0.png").convert("RGB")).reshape(-1, 3)
    shown = {"#" + bytes(own).hex() for own in np.unique(pixels, axis=0)}
    colours = schemes()["light"]
    assert {colours["paper"], colours["ink"], colours["series-1"]} <= shown
    assert not shown & set(VARIABLES)


def test_without_matplotlib_nothing_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idat_zoo.page.libraries.find_spec", lambda name: None)
    done = idat("report", str(tmp_path / "nothing"), "--html", str(tmp_path / "report.html"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "error: --html needs matplotlib, which is not installed.",
        "hint: pip install 'idat-zoo[report]'",
    ]


def test_a_large_page_is_below_five_megabytes() -> None:
    """19 tasks, 40 methods, 3 seeds, with a confusion matrix and recalls by class."""
    tasks = [task for own in AVERAGED["vtab1k"].values() for task in own]
    by_class = ClassScore(precision=0.9, recall=0.9, f1=0.9, count=10)
    confusion = tuple(
        tuple(9 if k == j else int(j == (k + 1) % 10) for j in range(10)) for k in range(10)
    )
    scores = scored(90).model_copy(update={"per_class": (by_class,) * 10, "confusion": confusion})
    found = [
        made(90, on_task(task, lr=1e-4 * (1 + method)), seed=seed, student=scores)
        for task in tasks
        for method in range(40)
        for seed in range(3)
    ]
    report, groups, _ = entries_of(found)
    text = build_page(report, groups).render(title="A large report")
    assert len(text.encode()) < 5_000_000
