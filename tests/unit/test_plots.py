"""Small plots on a terminal."""

import json
from pathlib import Path

import pytest
from page_of_inverse import RESULTS
from terminal import on_terminal

from idat_zoo.cli.plots import BAR_WIDTH, LONGEST_CURVE, bar, curve, curves


@pytest.mark.parametrize(
    ("top1", "chance", "shown"),
    [
        (0.0, None, " " * 30),
        (1.0, None, "█" * 30),
        (0.5, 0.1, "███|" + "█" * 11 + " " * 15),
        (0.1, 0.5, "███" + " " * 12 + "|" + " " * 14),
    ],
)
def test_a_bar_is_as_long_as_its_number(top1: float, chance: float | None, shown: str) -> None:
    assert bar(top1, chance=chance) == shown
    assert len(shown) == BAR_WIDTH


def test_a_curve_goes_from_the_first_value_to_the_last() -> None:
    assert curve([8, 7, 6, 5, 4, 3, 2, 1]) == "8 █▇▆▅▄▃▂▁ 1"
    assert curve([2.0, 2.0]) == "2 ▁▁ 2"
    assert curve([None, 1.0, 3.0]) == "1 ▁█ 3"
    long = curve([float(number) for number in range(1000)])
    blocks = long.split()[1]
    assert len(blocks) == LONGEST_CURVE
    assert (long.split()[0], long.split()[2]) == ("0", "999")
    assert "".join(sorted(blocks)) == blocks


def test_curves_are_of_a_runs_log(tmp_path: Path) -> None:
    assert curves(tmp_path) == []
    lines = [
        {"epoch": n, "loss": 4.0 - n, "student_task_loss": 3.0 - n, "test_top1": n / 4}
        for n in (1, 2)
    ]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert curves(tmp_path) == [
        "student's loss over 2 epochs: 2 █▁ 1",
        "top-1 on test over 2 epochs: 0.25 ▁█ 0.5",
    ]


@pytest.mark.slow
def test_a_report_has_bars_on_a_terminal_alone() -> None:
    for columns in (80, 120):
        code, text = on_terminal("report", RESULTS / "digits", columns=columns)
        assert code == 0
        bars = [line for line in text.splitlines() if "█" in line]
        assert len(bars) == 2
        assert "Top-1 on test, 0 to 100 %; | is chance" in text
        assert all(line.startswith("digits ") and line.rstrip().endswith(" %") for line in bars)
        assert max(map(len, bars)) <= columns


@pytest.mark.slow
def test_a_run_shows_its_curve_on_a_terminal(tmp_path: Path) -> None:
    words = ("--task", "digits", "--adapter", "linear", "--teacher", "none", "--device", "cpu")
    run = ("--pair", "tiny_random", "epochs=3", "warmup_epochs=0", "--out", tmp_path)
    code, text = on_terminal("train", *words, *run)
    assert code == 0
    assert "\n  student's loss over 3 epochs: " in text
