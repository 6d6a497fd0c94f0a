"""The script for CUDA devices and the benchmark of saturation, as far as no device is needed."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from idat_zoo.errors import UnknownNameError

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
SCRIPT = BENCHMARKS / "on_device.sh"
DOCS = (ROOT / "docs" / "benchmarks.md").read_text()

PARSE = """
import argparse, importlib, json, sys

class Parsed(BaseException):
    pass

plain = argparse.ArgumentParser.parse_args

def parse_args(self):
    plain(self)
    raise Parsed

argparse.ArgumentParser.parse_args = parse_args
sys.path.insert(0, sys.argv[1])
for script, *options in json.loads(sys.argv[2]):
    sys.argv = [script, *options]
    try:
        importlib.import_module(script).main()
    except Parsed:
        continue
    raise AssertionError(f"{script} parses nothing")
"""
FAKE = """
import json, pathlib, sys
folder = pathlib.Path(__file__).parent / "results"
folder.mkdir()
(folder / "any.cpu.json").write_text(json.dumps(sys.argv[1:]))
"""


def ask(script: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(script), *words], capture_output=True, text=True, check=False, timeout=60
    )


def steps() -> dict[str, tuple[int, list[str]]]:
    """The limit in seconds and the tables of each step."""
    lines = [line.split() for line in ask(SCRIPT, "steps").stdout.splitlines()]
    return {name: (int(limit), tables) for name, limit, *tables in lines}


def commands() -> list[list[str]]:
    """The step, table, script and options of each command."""
    return [line.split() for line in ask(SCRIPT, "commands").stdout.splitlines()]


def test_the_steps_fit_a_machine_lent_for_half_an_hour() -> None:
    assert sum(limit for limit, _ in steps().values()) <= 1380
    assert "add up to 23 minutes" in DOCS
    assert "add up to 23 minutes" in SCRIPT.read_text()


def test_the_documented_commands_have_each_step_once_and_fit_ten_minutes_and_eight_files() -> None:
    found = re.findall(r'^benchmarks/on_device.sh run "\$OUT" (.+)$', DOCS, re.MULTILINE)
    words = [line.split() for line in found]
    assert [name for line in words for name in line] == list(steps())
    for line in words:
        asked = [steps()[name] for name in line]
        assert sum(limit for limit, _ in asked) <= 500
        assert sum(len(tables) for _, tables in asked) + 1 <= 8  # and a log


def test_every_command_belongs_to_a_step_and_makes_a_table_of_its_own() -> None:
    assert {step for step, *_ in commands()} == set(steps())
    tables = [table for _, table, *_ in commands() if table != "-"]
    assert len(set(tables)) == len(tables)


@pytest.mark.slow
def test_the_options_of_every_command_are_known_to_its_script() -> None:
    words = [words for _, _, *words in commands() if words[0] != "pytest"]
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(BENCHMARKS), json.dumps(words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_all_files_with_gpu_tests_are_named() -> None:
    found = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    marked = [path for path in found if "mark.cuda" in path.read_text()]
    (named,) = re.findall(r'^CUDA_TESTS="(.+)"$', SCRIPT.read_text(), re.MULTILINE)
    assert set(named.split()) == {str(path.relative_to(ROOT)) for path in marked}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The script beside others that write a table at once; `joint_step` fails."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for _, _, name, *_ in commands():
        (folder / f"{name}.py").write_text(FAKE if name != "joint_step" else "raise SystemExit(3)")
    place = tmp_path / ".venv" / "bin"
    place.mkdir(parents=True)
    (place / "python").symlink_to(sys.executable)
    script = folder / "on_device.sh"
    script.write_text(SCRIPT.read_text())
    script.chmod(0o755)
    return script


def test_a_command_that_fails_is_named_at_the_end_and_the_others_go_on(copy: Path) -> None:
    done = ask(copy, "try", str(copy.parent / "out"), "step", "pool")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "failed: step: joint_step (exit 3); "
    assert re.search(r"^== step took \d+ s$", done.stdout, re.MULTILINE)
    made = {path.name for path in (copy.parent / "out").iterdir()}
    tables = ["peft_step", "peft_step_plain", "last_blocks", "pool_stream"]
    assert made == {"on_device.log", *(f"{table}.cpu.json" for table in tables)}
    plain = json.loads((copy.parent / "out" / "peft_step_plain.cpu.json").read_text())
    assert plain[0] == "--device"
    assert "--plain" in plain


def test_a_table_is_made_again_only_on_demand(copy: Path) -> None:
    out = copy.parent / "out"
    assert ask(copy, "try", str(out), "pool").returncode == 0
    table = out / "pool_stream.cpu.json"
    table.write_text("kept")
    again = ask(copy, "try", str(out), "pool")
    assert again.returncode == 0
    assert "pool_stream.cpu.json is there already" in again.stdout
    assert table.read_text() == "kept"
    assert ask(copy, "try", "--again", str(out), "pool").returncode == 0
    assert table.read_text() != "kept"


def test_an_unknown_step_is_refused_with_those_that_there_are(copy: Path) -> None:
    done = ask(copy, "try", str(copy.parent / "out"), "stop")
    assert done.returncode == 2
    assert "unknown step 'stop'. Known: tests step" in done.stderr


def test_a_block_of_a_missing_cuda_table_says_so_and_every_such_block_is_of_a_known_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    import write_tables

    assert "Not measured yet." in write_tables.render("steps.cuda", tmp_path)
    with pytest.raises(UnknownNameError):
        write_tables.render("steps.cpu", tmp_path)
    tables = {table for _, table, *_ in commands()}
    assert set(re.findall(r"^<!-- table: (.+)\.cuda -->$", DOCS, re.MULTILINE)) <= tables


@pytest.fixture
def saturation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import saturation

    return saturation


@pytest.mark.parametrize(
    ("largest", "memory", "expected"),
    [(64, 64, (16, 64)), (8, 64, (8, 8)), (64, 32, (16, 32)), (64, 4, (4, 4)), (3, 64, (2, 2))],
)
def test_the_saturating_batch_is_the_smallest_over_which_no_larger_one_gains(
    saturation: ModuleType, largest: int, memory: int, expected: tuple[int, int]
) -> None:
    def gain(a: int, b: int) -> float | None:
        speeds = {2: 1.0, 4: 2.0, 8: 3.0, 16: 3.5, 32: 3.6, 64: 3.65}
        return None if b > memory else speeds[b] / speeds[a]

    assert saturation.saturating_batch(2, largest, gain) == expected


def test_small_gains_that_add_up_to_more_move_the_saturating_batch(saturation: ModuleType) -> None:
    """Each doubling gains 3 %, so only every other one is over the limit."""
    gain = {(2, 4): 1.03, (2, 8): 1.06, (8, 16): 1.03}
    assert saturation.saturating_batch(2, 16, lambda a, b: gain[a, b]) == (8, 16)


def test_a_cell_that_does_not_fit_says_so_and_the_rest_goes_on(
    saturation: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def time_cell(
        setting: object, runs: int, batch: int, saturating: int, peak: float
    ) -> list[str]:
        if runs * batch == 4:
            raise torch.OutOfMemoryError("no")
        return [str(runs), str(batch), "timed"]

    monkeypatch.setattr(saturation, "time_cell", time_cell)
    monkeypatch.setattr(saturation, "matmul_peak", lambda device, precision: 1.0)
    setting = saturation.Setting("micro", "lora", torch.device("cpu"), repeats=1, steps=1)
    rows = saturation.time_cells(setting, [1, 2], [2, 4], 4, float("inf"))
    assert [row[2] for row in rows] == ["timed", "out of memory", "out of memory", "timed"]
    assert {len(row) for row in rows if row[2] == "out of memory"} == {9}
    rows = saturation.time_cells(setting, [1], [2], 4, float("-inf"))
    assert [row[2] for row in rows] == ["no time left"]
