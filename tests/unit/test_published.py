"""Published results: what ships, how a broken collection is told, and what selecting adds."""

import json
from pathlib import Path

import pytest
from made_results import AVERAGED, VTAB_1K
from terminal import on_terminal
from typer.testing import CliRunner

from idat_zoo.cli import app
from idat_zoo.errors import RecipeError
from idat_zoo.published_rows import PublishedRow
from idat_zoo.registry.published import COLLECTIONS, FOLDER, load_published
from idat_zoo.report.benchmark import named_means
from idat_zoo.report.inflation import build_inflation

PUBLISHED = load_published()
ROWS = {row.name: row for row in PUBLISHED}
PRINTED = {
    "Full": {"mean3": 68.9, "mean19": 65.57},
    "VPT-Deep": {"mean3": 72.0},
    "Adapter-8": {"mean3": 73.9},
    "AdaptFormer-8": {"mean3": 74.7},
    "LoRA-8": {"mean3": 74.5},
    "NOAH": {"mean3": 75.5},
    "FacT-TK≤32": {"mean3": 75.6},
    "SSF": {"mean3": 75.7, "mean19": 73.10},
    "Convpass-attn": {"mean3": 75.8},
    "RepAdapter": {"mean3": 76.1},
    "Hydra": {"mean3": 76.5},
    "Convpass": {"mean3": 76.6},
}
"""The means that the sources print beside their rows."""


def test_every_row_is_over_the_19_tasks_and_says_where_it_was_read() -> None:
    assert {row.table for row in PUBLISHED} == set(COLLECTIONS)
    assert len(ROWS) == len(PUBLISHED) == 22 + 16
    for row in PUBLISHED:
        assert set(row.top1) == set(VTAB_1K.tasks)
        assert row.source
        assert row.trained_millions[0] <= row.trained_millions[1]
    for file in FOLDER.glob("*.toml"):
        assert file.read_text(encoding="utf-8").startswith("# Source: ")


@pytest.mark.parametrize("method", PRINTED)
def test_the_named_means_of_a_row_are_those_its_source_prints(method: str) -> None:
    means = named_means(VTAB_1K, ROWS[f"papers/{method}"].top1)
    for name, printed in PRINTED[method].items():
        assert 100 * means[name] == pytest.approx(printed, abs=0.11)  # printed to 0.1, or cut


def test_mean3_and_mean19_are_two_numbers_points_apart() -> None:
    for row in PUBLISHED:
        means = named_means(VTAB_1K, row.top1)
        assert 0.02 < means["mean3"] - means["mean19"] < 0.05


def test_what_is_not_established_is_missing_and_not_guessed() -> None:
    assert ROWS["papers/SNF"].weights is None
    assert ROWS["papers/GPS"].selection is None
    assert ROWS["papers/SSF"].weights == "augreg_in21k"
    assert ROWS["papers/LoRA-8"].weights == "orig_in21k"


def test_selecting_the_epoch_on_test_adds_what_others_runs_show() -> None:
    (found,) = build_inflation(PUBLISHED, AVERAGED)
    assert found.over == 14
    assert 100 * found.means["mean3"] == pytest.approx(0.753, abs=5e-4)
    retinopathy = found.by_task["diabetic_retinopathy"]
    assert 100 * retinopathy.mean == pytest.approx(3.82, abs=5e-3)
    assert 100 * retinopathy.most == pytest.approx(10.81, abs=5e-3)
    assert max(found.by_task, key=lambda task: found.by_task[task].mean) == "diabetic_retinopathy"
    by_method = {one.method: one for one in found.methods}
    assert len(by_method) == 16
    assert {name for name, one in by_method.items() if not one.peft} == {"full", "linear"}
    assert 100 * by_method["vpt_deep"].means["mean3"] == pytest.approx(1.77, abs=5e-3)
    assert 100 * by_method["full"].means["mean3"] == pytest.approx(6.91, abs=1e-2)
    assert all(added >= 0 for one in found.methods for added in one.by_task.values())


def test_rows_with_one_number_alone_have_no_inflation() -> None:
    assert build_inflation([ROWS["papers/SSF"]], AVERAGED) == ()


def test_the_command_lists_them_with_the_inflation() -> None:
    shown = CliRunner().invoke(app, ["list", "published", "osu/*", "--json"])
    document = json.loads(shown.stdout)
    assert len(document["published"]) == 16
    (inflation,) = document["inflation"]
    assert 100 * inflation["means"]["mean3"] == pytest.approx(0.753, abs=5e-4)
    assert len(inflation["methods"][0]["by_task"]) == 19
    text = CliRunner().invoke(app, ["list", "published", "osu/vpt_deep"])
    assert text.stdout.splitlines()[1].split()[-3:] == ["71.34", "73.40", "+1.77"]
    assert "over 14 adapters: mean19 +0.65, mean3 +0.75" in text.stderr
    assert "most on diabetic_retinopathy, +3.82" in text.stderr


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_row_takes_one_line_of_a_terminal(columns: int) -> None:
    shown = on_terminal("list", "published", columns=columns).text
    assert sum("osu/" in line for line in shown.splitlines()) == 16
    (full,) = [line for line in shown.splitlines() if "papers/Full" in line]
    assert full.split()[-2:] == ["65.57", "68.97"]
    assert ("left out at this width: data copy" in shown) == (columns < 120)


def test_a_name_that_no_row_has_is_one_clear_line() -> None:
    outcome = CliRunner().invoke(app, ["list", "published", "nosuch/*"])
    assert outcome.exit_code == 1
    assert outcome.stderr == "error: no published match 'nosuch/*'.\n"


ROW = """
[Mine]
source = "here"
suite = "vtab1k"
backbone = "vit_base_patch16_224"
trained_millions = [0.1, 0.1]
"""


def read(folder: Path, text: str) -> list[PublishedRow]:
    (folder / "papers.toml").write_text(text)
    (folder / "osu.toml").write_text("")
    return load_published(folder)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("top1 = { dtd = 75.1 }", "less than or equal to 1"),
        ("top1 = { dtb = 0.75 }", "unknown task 'dtb'. Did you mean 'dtd' or"),
        ("top1 = { dtd = 0.75 }\nselecton = 'last'", "unknown key 'selecton'"),
        ("top1 = { dtd = 0.75 }\nselection = 'best'", "'last', 'val' or 'best_on_test'"),
        ("top1 = { dtd = 0.75 }\ntop1_best_on_test = { dtd = 0.7 }", "is below its top1"),
        ("top1 = { dtd = '0.75' }", "must be a number"),
        ("top1 = {", "broken TOML"),
    ],
)
def test_a_fault_of_a_collection_is_named(tmp_path: Path, line: str, fault: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, ROW + line)
    assert "papers.toml" in caught.value.message
    assert fault in caught.value.message
    assert len(caught.value.faults) == 1


def test_a_collection_without_fault_is_read_with_its_defaults(tmp_path: Path) -> None:
    (row,) = read(tmp_path, f"[defaults]\nweights = 'x'\n{ROW}top1 = {{ dtd = 0.75 }}")
    assert (row.name, row.weights, row.top1) == ("papers/Mine", "x", {"dtd": 0.75})


def test_a_key_outside_of_a_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"papers\.toml: \[method\]"):
        read(tmp_path, "method = 3\n")
