"""Trackers with their own libraries: what their stores hold, and a server that does not answer."""

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import idat
from event_files import logged, scalars, texts

from idat_zoo.results import load_result

pytestmark = pytest.mark.slow

NO_SERVER = "http://127.0.0.1:9"
SECONDS = 60.0
"""What a tracker without a server may cost at most, the import of its library on a busy machine
included."""


def train(folder: Path, out: Path, *words: str, **environment: str) -> str:
    """stderr of a command that trains two runs; it must end well, with their results on stdout."""
    command = ["train", "--task", "digits", "--adapter", "linear", "--pair", "tiny_random"]
    command += ["--teacher", "none", "--seeds", "0,1", "epochs=2", "warmup_epochs=1", *words]
    done = subprocess.run(
        [sys.executable, "-c", "from idat_zoo.cli import main; main()", *command, "--out", out],
        env=os.environ | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("top-1") == 2
    assert "wandb:" not in done.stdout  # the lines that it prints
    return done.stderr


def arrays(out: Path) -> dict[str, bytes]:
    """The bytes of all weights and predictions below a folder."""
    files = sorted(out.rglob("*.safetensors"))
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """The arrays of the runs without a tracker, and the seconds they took."""
    out = tmp_path_factory.mktemp("untracked")
    began = time.monotonic()
    train(out, out / "runs")
    return arrays(out / "runs"), time.monotonic() - began


def losses(out: Path) -> list[list[float]]:
    """The losses of each run by epoch, of log.jsonl."""
    logs = sorted(out.rglob("log.jsonl"))
    return [[json.loads(line)["loss"] for line in log.read_text().splitlines()] for log in logs]


STUDY = """
title = "A small study"
reference = "none"
pair = "tiny_random"

[[part]]
tasks = ["digits"]
adapters = ["linear"]
terms = ["none", "mse"]
seeds = [0, 1]
set = {epochs = 2, warmup_epochs = 0}
"""


def test_event_files_of_every_run_of_a_study_hold_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(STUDY)
    words = ("study", "small.toml", "--device", "cpu", "--stack", "2", "--tracker", "tensorboard")
    done = idat(*words)
    assert done.exit_code == 0, done.stderr
    assert "tracker" not in done.stderr
    runs = [path.parent for path in Path("runs/small").rglob("result.json")]
    assert len(runs) == 4
    for run in runs:
        result, found, log = load_result(run / "result.json"), scalars(run), logged(run)
        low, high = result.top1_interval
        ends = {"top1": result.top1, "top1_low": low, "top1_high": high}
        if result.teacher is not None:
            ends["teacher_top1"] = result.teacher.top1
        assert [step for step, _ in log["loss"]] == [1, 2]
        assert found == log | {name: [(2, float(np.float32(end)))] for name, end in ends.items()}
        assert f"seed = {result.seed}" in texts(run)["recipe"]
        assert texts(run)["outcome"] == "finished"
    again = idat(*words)
    assert "4 runs were finished before this command" in again.stderr
    assert len(list(Path("runs/small").rglob("*tfevents*"))) == 4


def test_mlflows_store_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untracked: tuple[dict[str, bytes], float]
) -> None:
    import mlflow

    own = {
        "MLFLOW_TRACKING_URI": (tmp_path / "store").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }
    said = train(tmp_path, tmp_path / "runs", "--tracker", "mlflow", "--stack", "2", **own)
    assert "tracker" not in said
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    client = mlflow.MlflowClient()
    stored = client.search_runs([client.get_experiment_by_name("idat-zoo").experiment_id])
    stored = sorted(stored, key=lambda one: int(one.data.params["seed"]))
    assert [one.info.status for one in stored] == ["FINISHED", "FINISHED"]
    assert [one.data.params["adapter.name"] for one in stored] == ["linear", "linear"]
    assert all({"top1", "top1_low", "top1_high"} <= set(one.data.metrics) for one in stored)
    points = [client.get_metric_history(one.info.run_id, "loss") for one in stored]
    assert [[point.step for point in own] for own in points] == [[1, 2], [1, 2]]
    assert [[point.value for point in own] for own in points] == losses(tmp_path / "runs")


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: LevelDB's log format after a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, body = path.read_bytes(), b""
    assert data.startswith(b":W&B")
    at = 7
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no header fits into the rest of a block
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        body += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(body)
            body = b""


def test_wandbs_offline_store_is_read_back(
    tmp_path: Path, untracked: tuple[dict[str, bytes], float]
) -> None:
    own = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}
    assert "tracker" not in train(tmp_path, tmp_path / "runs", "--tracker", "wandb", **own)
    assert arrays(tmp_path / "runs") == untracked[0]
    stored = {}
    for path in (tmp_path / "wandb").glob("offline-run-*/*.wandb"):
        held = list(records(path))
        (begun,) = [one.run for one in held if one.WhichOneof("record_type") == "run"]
        rows = [
            {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            for items in (one.history.item for one in held)
            if items
        ]
        ended = {
            item.key or "/".join(item.nested_key): item.value_json
            for one in held
            for item in one.summary.update
        }
        assert begun.project == "idat-zoo"
        assert "top1_low" in ended
        assert ended["outcome"] == '"finished"'
        assert [one.exit.exit_code for one in held if one.HasField("exit")] == [0]
        assert [row["epoch"] for row in rows] == [1, 2]
        stored[begun.display_name] = [row["loss"] for row in rows]
    assert [stored[name] for name in sorted(stored)] == losses(tmp_path / "runs")


def test_trackios_store_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untracked: tuple[dict[str, bytes], float]
) -> None:
    pytest.importorskip("trackio")  # not in the extra `test`, as it asks for an older pillow
    own = {"TRACKIO_DIR": str(tmp_path / "store")}
    assert "tracker" not in train(tmp_path, tmp_path / "runs", "--tracker", "trackio", **own)
    assert arrays(tmp_path / "runs") == untracked[0]
    script = (
        "import json\nfrom trackio.sqlite_storage import SQLiteStorage as S\n"
        "print(json.dumps([S.get_logs('idat-zoo', r) for r in sorted(S.get_runs('idat-zoo'))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | own,
        capture_output=True,
        text=True,
        check=True,
    )
    stored = json.loads(done.stdout)
    assert [[row["loss"] for row in own if "loss" in row] for own in stored] == losses(
        tmp_path / "runs"
    )
    assert [own[-1]["outcome"] for own in stored] == ["finished", "finished"]


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("mlflow", {"MLFLOW_TRACKING_URI": NO_SERVER}),
        ("wandb", {"WANDB_BASE_URL": NO_SERVER, "WANDB_API_KEY": "a" * 40}),
    ],
)
def test_with_its_server_gone_there_is_one_warning_and_the_same_bits(
    tmp_path: Path, name: str, own: dict[str, str], untracked: tuple[dict[str, bytes], float]
) -> None:
    began = time.monotonic()
    said = train(tmp_path, tmp_path / "runs", "--tracker", name, **own)
    assert said.count(f"tracker '{name}' is left out") == 1
    assert arrays(tmp_path / "runs") == untracked[0]
    assert time.monotonic() - began < untracked[1] + SECONDS
