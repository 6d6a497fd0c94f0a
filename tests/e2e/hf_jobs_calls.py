"""Calls of the executor `hf-jobs` against the Hub on loopback, and their answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from command import idat
from hub_jobs import Bucket
from hub_server import TOKEN, Hub, ask_from_here, serving
from test_executors import CPU, SMALL

BUCKET = "me/idat"
JOBS = ("study", "small.toml", *CPU, "--executor", "hf-jobs")
OURS = ("--executor-option", f"bucket={BUCKET}")
PAID = """
title = "What is not on a job's machine"
reference = "none"
pair = "vit_s_to_vit_b"

[[part]]
tasks = ["cifar100"]
adapters = ["linear"]
terms = ["none"]
seeds = [0]
"""


@pytest.fixture(name="hub")
def hub_with_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with a bucket; the working folder is empty, and someone is logged in."""
    monkeypatch.chdir(tmp_path)
    for variable in ("IDAT_SHELF", "IDAT_DATA_DIR", "IDAT_DEBUG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    Path("small.toml").write_text(SMALL)
    with serving(Hub(large="xet", buckets={BUCKET: Bucket()})) as running:
        ask_from_here(running, tmp_path / "cache", monkeypatch)
        yield running


def submit(*words: str) -> Result:
    return idat(*JOBS, *OURS, *words)


def end(hub: Hub, place: int, stage: str, message: str | None = None) -> None:
    """Let a job end, by its place in the order of the requests."""
    hub.jobs[-1 - place]["status"] = {"stage": stage, "message": message}


def assert_one_error(result: Result, message: str, *, code: int) -> None:
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    told = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert told == [f"error: {message}"]
    assert TOKEN not in result.output
    assert "Traceback" not in result.output
