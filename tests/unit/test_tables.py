"""Tables in README and docs: written from results, never stale. On a terminal: no word is cut."""

import importlib.util
import io
import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from conftest import toy_recipe
from idat_zoo.adapters import ADAPTERS
from idat_zoo.cli import progress, screen
from idat_zoo.engine.learner import EpochLog
from idat_zoo.errors import UnknownNameError
from idat_zoo.runs.many import run

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = {"columns": ["step", "ms"], "rows": [["joint", 12.5], ["alone", 7]], "note": "On paper."}
TABLE = "\n| step | ms |\n| --- | --- |\n| joint | 12.5 |\n| alone | 7 |\n\nOn paper.\n\n"


def load_script(name: str = "write_tables") -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()


def block(name: str, inside: str = "old\n") -> str:
    return f"<!-- table: {name} -->\n{inside}<!-- end -->\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one document, named `steps`."""
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "steps.json").write_text(json.dumps(DOCUMENT))
    (tmp_path / "docs").mkdir()
    return tmp_path


def test_all_tables_of_this_repository_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert SCRIPT.main(["--check"]) == 0, capsys.readouterr()


def test_the_page_of_families_is_fresh_and_has_them_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script("write_families")
    assert script.main(["--check"]) == 0, capsys.readouterr()
    page = (ROOT / "docs" / "families.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        f"## {name}" for name in ADAPTERS
    ]
    monkeypatch.setattr("idat_zoo.adapters.lora.LoRA.__doc__", "Another text.")
    assert script.main(["--check"]) == 1


def test_no_family_is_five_points_below_lora_on_digits() -> None:
    document = json.loads((ROOT / "benchmarks/results/zoo.json").read_text())
    digits = [i for i, name in enumerate(document["columns"]) if name.startswith("digits, ")]
    reached = {row[0]: [float(row[i].split()[0]) for i in digits] for row in document["rows"]}
    assert (len(digits), reached.keys()) == (2, ADAPTERS.keys())
    far = {
        family
        for family, tops in reached.items()
        if any(lora - top > 5 for lora, top in zip(reached["lora"], tops, strict=True))
    }
    assert not far, "docs/zoo.md says there are none: say why these are"


def test_a_stale_block_is_named_and_left_alone_by_check(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = repository / "docs" / "speed.md"
    planted = block("steps", TABLE.replace("12.5", "11.5"))
    page.write_text(planted)
    assert SCRIPT.main(["--check"], root=repository) == 1
    assert capsys.readouterr().out == "stale: docs/speed.md: steps\n"
    assert page.read_text() == planted


def test_blocks_are_rewritten_and_then_fresh(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = repository / "README.md"
    page.write_text(f"Before.\n\n{block('steps')}\nBetween \\1.\n\n{block('steps')}After.\n")
    assert SCRIPT.main([], root=repository) == 0
    fresh = block("steps", TABLE)
    assert page.read_text() == f"Before.\n\n{fresh}\nBetween \\1.\n\n{fresh}After.\n"
    capsys.readouterr()
    assert SCRIPT.main(["--check"], root=repository) == 0
    assert capsys.readouterr().out == ""


def test_runs_become_a_report_with_machine_versions_and_command(repository: Path) -> None:
    made = run(toy_recipe(), out=repository / "benchmarks/results/digits", device="cpu")
    text = SCRIPT.render("digits", repository)
    last = text.strip().splitlines()[-1]
    assert "**Top-1 on test**" in text
    assert f"| {100 * made.top1:.2f} |" in text
    assert last.startswith(f"Measured on {made.device}; idat-zoo ")
    assert f"torch {made.versions['torch']}" in last
    assert last.endswith("`idat report benchmarks/results/digits --format markdown`.")
    assert str(repository) not in text


def test_a_marker_inside_a_sentence_is_no_block(repository: Path) -> None:
    (repository / "README.md").write_text("Write `<!-- table: NAME -->` on a line.\n")
    assert SCRIPT.main(["--check"], root=repository) == 0


def test_an_unknown_name_is_an_error(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "README.md").write_text(block("step"))
    with pytest.raises(UnknownNameError, match="Did you mean 'steps'"):
        SCRIPT.render("step", repository)
    assert SCRIPT.main([], root=repository) == 2
    assert "unknown table 'step'" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["<!-- table: steps -->\n", "<!-- table: steps -->\n" * 2])
@pytest.mark.parametrize("rest", ["", block("steps")])
def test_a_block_without_end_is_an_error(
    repository: Path, capsys: pytest.CaptureFixture[str], text: str, rest: str
) -> None:
    (repository / "README.md").write_text(text + rest)
    assert SCRIPT.main([], root=repository) == 1
    assert "has no line <!-- end -->" in capsys.readouterr().err
    assert (repository / "README.md").read_text() == text + rest


def test_a_document_with_faults_is_an_error_that_names_them(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = {"columns": ["step", "ms"], "rows": [["joint"]]}
    (repository / "benchmarks/results/steps.json").write_text(json.dumps(document))
    (repository / "README.md").write_text(block("steps"))
    assert SCRIPT.main([], root=repository) == 1
    message = capsys.readouterr().err
    assert "benchmarks/results/steps.json: note" in message


def test_a_row_of_another_width_is_an_error(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = DOCUMENT | {"rows": [["joint", 12.5], ["alone"]]}
    (repository / "benchmarks/results/steps.json").write_text(json.dumps(document))
    (repository / "README.md").write_text(block("steps"))
    assert SCRIPT.main([], root=repository) == 1
    assert "row 2 has 1 values for 2 columns" in capsys.readouterr().err


# On a terminal


REPORT = (
    ["task", "recipe", "top-1 %", "interval", "seeds", "top1_best_on_test %", "parameters"],
    [
        [
            "sprites_loc",
            "R1, lr 0.001, epochs 20",
            "71.77 ± 0.40",
            "68.9–74.5",
            "3",
            "1.5",
            "16.4 k",
        ],
        ["digits", "R2, with its teacher", "100.00", "99.1–100.0", "12", "–", "1.23 M + 516"],
    ],
)
NAMES = (
    ["class", "index", "images", "recall"],
    [
        ["a very long name of one class that someone gave it", "0", "1000", "99.95"],
        ["b", "1", "7", "1"],
    ],
)
FOLDERS = (["file", "SHA-256"], [["photos/" + "x" * 40, "0123456789ab…"], ["y", "–"]])


def on_terminal(
    table: tuple[list[str], list[list[str]]], width: int, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """The lines of a table on a terminal of a width."""
    told = io.StringIO()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr("rich.console.Console", partial(Console, file=told, width=width))
    screen.print_table(*table)
    return told.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("table", [REPORT, NAMES, FOLDERS], ids=["report", "names", "files"])
def test_no_word_or_number_is_cut_at_any_width(
    table: tuple[list[str], list[list[str]]], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = on_terminal(table, width, monkeypatch)
    words = [word for line in lines for word in line.split()]
    longest = max(len(word) for row in table[1] for cell in row for word in cell.split())
    for word in [word for row in table[1] for cell in row for word in cell.split()]:
        assert word in words or longest > width
    assert max(map(len, lines)) <= width


def test_a_deviation_and_a_unit_stay_with_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["digits", "97.99 ± 0.13", "16.4 k + 1.3 k"]]
    lines = on_terminal((["task", "top-1 %", "parameters"], rows), 28, monkeypatch)
    assert any("97.99 " in line and "±" not in line for line in lines)
    assert any("± 0.13" in line for line in lines)
    assert any("16.4 k" in line for line in lines)
    assert any("1.3 k" in line for line in lines)


def test_long_names_break_after_underscores_before_rows_become_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns = ["adapter", "arm", "sprites_loc", "sprites_ori", "kl_t2"]
    rows = [["a_long_first", "equal_parameters", "+1.00", "kl_t2", "+2.00"]]
    assert on_terminal((columns, rows), 51, monkeypatch) == [
        "                          sprites_  sprites_       ",
        "adapter       arm         loc       ori       kl_t2",
        "a_long_first  equal_      +1.00     kl_t2     +2.00",
        "              parameters                           ",
    ]
    assert len(on_terminal((columns, rows), 80, monkeypatch)) == 2
    assert on_terminal((columns, rows), 40, monkeypatch)[1] == "  arm: equal_parameters"


def test_what_fits_stays_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = on_terminal(REPORT, 120, monkeypatch)
    assert len(lines) == 3
    assert "71.77 ± 0.40" in lines[1]


def bar_lines(width: int, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """What the second of four runs says before its first step, and in its thirteenth epoch."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=io.StringIO(), width=width))
    monkeypatch.setattr(progress, "_time_left", lambda task: "1:05" if task.total else "")
    bar = progress.LiveProgress()

    def line() -> str:
        style = {"force_terminal": True, "color_system": "standard"}
        console = Console(file=io.StringIO(), width=width, record=True, **style)
        console.print(bar._bar.get_renderable())
        (shown,) = console.export_text().splitlines()
        return shown.rstrip()

    bar.run(2, of=4)
    bar.doing(name, "loading images")
    before = line()
    bar.stage(name, done=0, epochs=20, steps=10, images=64)
    parts = {"student_task_loss": 0.52, "teacher_task_loss": 0.75, "distillation_loss": 0.25}
    bar.epoch([EpochLog(epoch=12, lr=0.01, loss=1.52, **parts)])
    bar._started -= 1
    bar.step()
    return before, line()


@pytest.mark.parametrize(
    ("width", "told"),
    [
        (40, ["run 2 of 4"]),
        (60, ["run 2 of 4", "epoch 12/20", "loss 1.52"]),
        (80, ["run 2 of 4", "epoch 12/20", "loss 1.52", " images/s", "1:05"]),
        (120, ["loss 1.52", " images/s", "1:05", "student 0.52", "teacher 0.75"]),
        (130, ["teacher 0.75", "distillation 0.25"]),
    ],
)
def test_a_bar_drops_details_from_the_right(
    width: int, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, line = bar_lines(width, "sprites_loc", monkeypatch)
    assert before.startswith("sprites_loc ")
    assert "run 2 of 4" in before
    assert ("loading images" in before) == (width > 40)
    assert line.startswith("sprites_loc \N{BOX DRAWINGS HEAVY HORIZONTAL}")
    assert len(line) <= width
    for words in told:
        assert words in line, line
    assert ("teacher" in line) == (width > 80)
    assert ("distillation" in line) == (width > 120)


def test_a_long_name_gives_way_to_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    _, line = bar_lines(30, "[red]a name that is far too long", monkeypatch)
    assert line.startswith("[red]a name that")
    assert "… " in line
    assert len(line) <= 30
    assert line.endswith("\N{BOX DRAWINGS HEAVY HORIZONTAL}" * 7)
