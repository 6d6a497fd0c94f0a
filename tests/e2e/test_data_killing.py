"""Decoding that is killed with SIGKILL at any moment leaves whole entries, or none, and no bit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def killings(folder: Path, *arguments: str) -> dict[str, object]:
    script = Path(__file__).with_name("decode_killing.py")
    command = [sys.executable, str(script), str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, object] = json.loads(done.stdout)
    return report


@pytest.mark.system
def test_twenty_kills_by_timer_leave_whole_entries_or_none(tmp_path: Path) -> None:
    report = killings(tmp_path, "timer", "20", "0")
    assert (report["killed"], report["wrong"]) == (20, [])
    assert isinstance(report["begun"], int)
    assert report["begun"] >= 5  # most moments lie within an entry's making


@pytest.mark.system
def test_a_kill_around_every_step_leaves_whole_entries_or_none(tmp_path: Path) -> None:
    report = killings(tmp_path, "moments")
    assert report["wrong"] == []
    assert isinstance(report["killed"], int)
    # three entries, each with a folder, pixels, entry.json and two renames: before and after each
    assert report["killed"] >= 3 * 5 * 2
