"""The lowest timm that pyproject names, installed into a folder of its own."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from kinds import FILES, FORMS, SINCE
from packaging.version import Version

ROOT = Path(__file__).parents[2]
HELD = "timms_own_forward_to_the_bit or timm_loads"
"""The walk through every form, and weights of every kind."""


def lowest_timm() -> str:
    """The lower bound, e.g. 1.0.23."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (asked,) = (each for each in project["dependencies"] if each.startswith("timm"))
    bounds = re.fullmatch(r"timm>=([\d.]+),<[\d.]+", asked)
    assert bounds is not None, asked
    return bounds[1]


@pytest.mark.system
def test_the_lowest_timm_builds_walks_and_loads_every_kind(tmp_path: Path) -> None:
    version = lowest_timm()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    installed = run([*pip, str(tmp_path), f"timm=={version}"])
    if re.search(r"No matching distribution|onnection|Temporary failure", installed.stderr):
        pytest.skip(f"pip reaches no index that has timm {version}")
    assert installed.returncode == 0, installed.stderr
    there = {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    seen = run([sys.executable, "-c", "import timm; print(timm.__version__)"], **there)
    assert seen.stdout.strip() == version
    pytest_here = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tests = [ROOT / "tests/unit/test_kinds.py", ROOT / "tests/unit/test_pinned.py"]
    older = "ignore::FutureWarning"  # what timm then used is deprecated now
    done = run([*pytest_here, "-W", older, "-k", HELD, *map(str, tests)], **there)
    assert done.returncode == 0, done.stdout[-4000:]
    lacking = {form for form, since in SINCE.items() if Version(version) < Version(since)}
    assert f"{len(FORMS.keys() - lacking) + len(FILES)} passed" in done.stdout


def run(words: list[str], **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        words, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False
    )
