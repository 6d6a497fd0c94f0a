"""`idat report`: what it prints and what it writes."""

import json
from pathlib import Path

import pytest
from made_results import ALONE, TAUGHT, build_report
from typer.testing import CliRunner
from typer.testing import Result as Outcome

from idat_zoo.cli import app
from idat_zoo.results import find_results
from idat_zoo.runs.many import run


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


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("md", ["--format", "markdown"]),
        ("csv", ["--format", "csv"]),
        ("tex", ["--format", "latex"]),
        ("json", ["--json"]),
    ],
)
def test_out_writes_by_the_ending_what_the_format_prints(
    runs: Path, ending: str, words: list[str], tmp_path: Path
) -> None:
    file = tmp_path / f"report.{ending}"
    printed = idat(str(runs), *words).stdout
    for _ in range(2):  # a report may be overwritten
        assert idat(str(runs), "--out", str(file)).exit_code == 0
        assert file.read_text() == printed


@pytest.mark.parametrize(
    ("words", "beginning"),
    [([], "**2 results"), (["--format", "table"], "**2 results"), (["--format", "csv"], "task,")],
)
def test_a_file_of_no_known_ending_is_written_as_the_format_says(
    runs: Path, words: list[str], beginning: str, tmp_path: Path
) -> None:
    file = tmp_path / "report"
    assert idat(str(runs), "--out", str(file), *words).exit_code == 0
    assert file.read_text().startswith(beginning)


@pytest.mark.parametrize("ending", ["md", "csv", "tex", "json"])
def test_out_replaces_a_report_and_nothing_else(runs: Path, ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"report.{ending}"
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


def test_a_folder_that_does_not_exist_is_told_from_one_without_results(tmp_path: Path) -> None:
    outcome = idat(str(tmp_path), str(tmp_path / "gone"))
    assert outcome.exit_code == 1
    assert outcome.stderr.startswith(f"error: there is no file or folder '{tmp_path / 'gone'}'.\n")


def test_out_in_a_place_that_cannot_be_written_is_one_clear_line(
    runs: Path, tmp_path: Path
) -> None:
    outcome = idat(str(runs), "--out", str(tmp_path))
    assert outcome.exit_code == 1
    assert outcome.stderr.startswith("error: cannot write")
    assert "--resume" not in outcome.stderr


@pytest.mark.parametrize("option", ["--out", "--html", "--png"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work_and_by_its_option(
    tmp_path: Path, option: str
) -> None:
    (tmp_path / "file").touch()
    page = () if option == "--html" else ("--html", str(tmp_path / "made/page.html"))
    outcome = idat(str(tmp_path), *page, option, str(tmp_path / "file/report.md"))
    assert outcome.exit_code == 1
    assert "cannot write" in outcome.stderr  # and not that there is no result
    assert outcome.stderr.endswith(f"stands in the way: choose another {option}.\n")
    assert not (tmp_path / "made").exists()


def test_html_over_a_folder_is_refused_as_such(tmp_path: Path) -> None:
    outcome = idat(str(tmp_path), "--html", str(tmp_path))
    assert outcome.stderr.startswith(f"error: cannot write '{tmp_path}': Is a directory\n")
