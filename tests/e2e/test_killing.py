"""A run killed with SIGKILL at any moment, resumed, leaves the bytes of an undisturbed run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def killings(folder: Path, *arguments: str) -> dict[str, object]:
    script = Path(__file__).with_name("killing.py")
    command = [sys.executable, str(script), str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, object] = json.loads(done.stdout)
    return report


@pytest.mark.system
def test_a_kill_at_every_file_write_changes_no_byte(tmp_path: Path) -> None:
    report = killings(tmp_path, "alone", "writes")
    # recipe and call, 3 trainings of 2 epochs with log and state each, 2 candidates' scores, 4
    # files of student and teacher, predictions, probe, result: 23 writes, three moments each
    assert report == {"killed": 69, "differing": []}


@pytest.mark.system
def test_a_hundred_kills_by_timer_change_no_byte(tmp_path: Path) -> None:
    assert killings(tmp_path, "alone", "timer", "100", "1") == {"killed": 100, "differing": []}


@pytest.mark.system
def test_twenty_kills_of_a_pass_of_two_runs_change_no_byte(tmp_path: Path) -> None:
    assert killings(tmp_path, "pass", "timer", "20", "0") == {"killed": 20, "differing": []}


@pytest.mark.system
def test_a_kill_of_a_pass_at_every_file_write_changes_no_byte(tmp_path: Path) -> None:
    report = killings(tmp_path, "pass", "writes")
    # as above, of one run with 2 epochs and one with 1: 23 and 17 writes, three moments each
    assert report == {"killed": 120, "differing": []}
