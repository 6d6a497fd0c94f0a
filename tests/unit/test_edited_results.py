"""Results that were edited by hand, of other schemas, or unfinished: one clear line each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_results import ALONE, TAUGHT
from result_documents import as_written, write_document
from typer.testing import CliRunner

from idat_zoo.cli import app
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.registry import load_registry
from idat_zoo.report.changed_recipes import check_recipes
from idat_zoo.results import find_results, load_result
from idat_zoo.runs.many import run

KEPT = Path(__file__).parents[2] / "benchmarks/results"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The result.json of a real run with a teacher."""
    out = tmp_path_factory.mktemp("runs")
    run(TAUGHT, out=out, device="cpu")
    (path,) = out.rglob("result.json")
    return path.read_bytes()


def report_on(place: Path) -> tuple[int, str, str]:
    outcome = CliRunner().invoke(app, ["report", str(place)])
    return outcome.exit_code, outcome.stdout, outcome.stderr


def swap_interval(document: dict[str, Any]) -> None:
    for place in (document, document["student"]):
        place["top1_interval"] = [0.9, 0.95]


def raise_top1(document: dict[str, Any]) -> None:
    count = document["student"]["count"]
    for place in (document, document["student"]):
        place["top1"] = (round(place["top1"] * count) + 20) / count


def raise_top1_with_its_interval(document: dict[str, Any]) -> None:
    from idat_zoo.intervals import wilson_interval

    raise_top1(document)
    count, top1 = document["student"]["count"], document["top1"]
    for place in (document, document["student"]):
        place["top1_interval"] = wilson_interval(round(top1 * count), count)


def raise_all_but_the_confusions(document: dict[str, Any]) -> None:
    raise_top1_with_its_interval(document)
    rows = document["student"]["per_class"]
    wanted = document["top1"] * document["student"]["count"]
    recalled = sum(row["recall"] * row["count"] for row in rows)
    for row in rows:
        row["recall"] *= wanted / recalled


EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "top1 alone": (lambda d: d.update(top1=0.99), "top1 is 0.9900, and "),
    "interval alone": (lambda d: d.update(top1_interval=[0.1, 0.2]), "top1_interval is another"),
    "no share": (
        lambda d: (d.update(top1=0.9), d["student"].update(top1=0.9)),
        "the student's top1 is 0.9000, which is no share of 797 images",
    ),
    "another interval": (swap_interval, "and top1_interval is not of"),
    "top1 without its interval": (raise_top1, "and top1_interval is not of"),
    "top1 with its interval": (raise_top1_with_its_interval, "by the recall of its classes"),
    "fewer images of a class": (
        lambda d: d["student"]["per_class"][0].update(count=1),
        "the student's count is 797, and per_class has",
    ),
    "the teacher": (
        lambda d: d["teacher"].update(top1=400 / 797),
        "the teacher's top1 is 0.5019, and top1_interval is not of",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_report_refuses_a_result_that_contradicts_itself(
    finished: bytes, name: str, tmp_path: Path
) -> None:
    edit, said = EDITS[name]
    document = json.loads(finished)
    edit(document)
    file = tmp_path / "result.json"
    write_document(file, document)
    code, out, err = report_on(tmp_path)
    first, hint = err.splitlines()
    assert (code, out) == (1, "")
    assert first.startswith(f"error: '{file}' contradicts itself: ")
    assert said in first
    assert "not as it was written" in hint


def test_confusions_are_checked_where_they_are_read(finished: bytes, tmp_path: Path) -> None:
    document = json.loads(finished)
    raise_all_but_the_confusions(document)
    file = tmp_path / "result.json"
    write_document(file, document)
    with pytest.raises(Exception, match="by its confusions"):
        load_result(file)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("lr",), 0.5),
        (("adapter", "options", "rank"), 3),
        (("teacher_adapter", "options", "rank"), 3),
        (("pair", "student", "weights"), "augreg_in21k"),
        (("normalisation",), "none"),
    ],
)
def test_a_recipe_that_is_not_the_runs_is_told_by_its_hash(
    finished: bytes, place: tuple[str, ...], value: object, tmp_path: Path
) -> None:
    document = json.loads(finished)
    table = document["recipe"]
    for key in place[:-1]:
        table = table.setdefault(key, {})
    table[place[-1]] = value
    for seed, content in enumerate((json.loads(finished), document)):  # one of them is as it was
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        write_document(folder / "result.json", content)
    code, out, err = report_on(tmp_path)
    assert (code, out) == (1, "")
    said = f"error: '{tmp_path}/seed1/result.json' contradicts itself: recipe_hash is "
    assert err.startswith(said)


def test_the_kept_results_contradict_nothing_with_and_without_torch() -> None:
    found = find_results([KEPT])
    assert len(found) > 500
    for path, result in found:
        check_recipes([(path, result)], load_registry().read_options)
    recipes = {result.recipe_hash: result.recipe for _, result in found}
    assert all(recipe_hash(recipe) == own for own, recipe in recipes.items())


def test_without_tables_by_class_the_rest_of_a_result_is_the_same(
    finished: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "result.json"
    file.write_bytes(finished)
    whole, less = load_result(file), load_result(file, by_class=False)
    empty = {"per_class": (), "confusion": ()}
    assert whole.student.confusion
    assert less.networks.keys() == {"student", "teacher", "logit_ensemble"}
    for name, metrics in whole.networks.items():
        assert less.networks[name] == metrics.model_copy(update=empty)
    assert less.model_copy(update=whole.networks) == whole


def test_a_damaged_table_by_class_is_named_in_both_ways(finished: bytes, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    document = json.loads(finished)
    document["student"]["confusion"][0][0] = "many"
    write_document(file, document)
    for by_class in (True, False):
        with pytest.raises(Exception, match=r"student\.confusion"):
            load_result(file, by_class=by_class)


def test_results_of_two_schemas_are_named_in_a_note(finished: bytes, tmp_path: Path) -> None:
    older = json.loads(finished) | {"schema_version": 0, "seed": 1}
    for name, content in (("a", finished), ("b", as_written(older))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_bytes(content)
    code, out, _ = report_on(tmp_path)
    assert code == 0
    assert "digits: schemas of results differ (0; 1)" in out


def test_a_newer_schema_is_one_clear_line(finished: bytes, tmp_path: Path) -> None:
    write_document(tmp_path / "result.json", json.loads(finished) | {"schema_version": 9})
    code, out, err = report_on(tmp_path)
    assert (code, out) == (1, "")
    assert "has schema 9; this idat-zoo reads up to 1." in err


def test_a_run_on_another_test_set_is_marked_and_noted(finished: bytes, tmp_path: Path) -> None:
    other = json.loads(finished) | {"data_fingerprint": "f" * 64}
    for name, content in (("a", finished), ("b", as_written(other))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_bytes(content)
    code, out, _ = report_on(tmp_path)
    assert code == 0
    assert "rows of different data do not compare" in out
    assert "ffffffff" in out


def begun(out: Path) -> Path:
    """A folder of a run that has not finished: that of a real one without its result."""
    run(ALONE, out=out, device="cpu")
    (path,) = [file for file in out.rglob("result.json") if "none" not in str(file)]
    path.unlink()
    return path.parent


def test_unfinished_runs_are_named_in_one_note(finished: bytes, tmp_path: Path) -> None:
    folder = begun(tmp_path)
    named = folder.relative_to(tmp_path).as_posix()
    code, _, err = report_on(tmp_path)
    assert code == 1
    assert (
        err == f"error: no result.json in {tmp_path}.\nhint: Unfinished runs are there: {named}.\n"
    )
    (tmp_path / "result.json").write_bytes(finished)
    code, out, err = report_on(tmp_path)
    assert (code, err) == (0, "")
    assert out.count("nfinished") == 1
    assert f"1 unfinished run is not in it: {named}" in out
