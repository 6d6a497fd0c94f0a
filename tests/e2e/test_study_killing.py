"""A study killed with SIGKILL at random moments ends in the bytes of an undisturbed one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.system
def test_ten_kills_of_a_study_with_two_workers_change_no_byte(tmp_path: Path) -> None:
    script = Path(__file__).with_name("study_killing.py")
    command = [sys.executable, str(script), str(tmp_path), "10", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"killed": 10, "differing": [], "results": 4}
