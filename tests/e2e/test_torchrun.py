"""`torchrun … idat train`: several processes that train one run, against one process.

Gradients are summed over rows in another order, so numbers agree to rounding. In float64 that is
1e-12 (7e-14 was the most that was measured), in float32 1e-5 for a loss (1e-6) and 1e-4 for a
trained tensor after 8 steps: 3e-5 where AdamW enlarges a gradient near zero, else 1e-6.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from command import idat
from fakes import write_image
from safetensors.torch import load_file
from toy_runs import same_but_for_times

from idat_zoo.adapters import ADAPTERS
from idat_zoo.distillation import TERMS

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
"""torchrun itself is a script that calls this module."""
SCRIPT = str(Path(__file__).with_name("training_together.py"))
TINY = ("--task", "digits", "--pair", "tiny_random", "--device", "cpu", "warmup_epochs=1")
FLOAT64 = {"values": 1e-12, "moments": 1e-12, "losses": 1e-12}
FLOAT32 = {"values": 1e-4, "moments": 1e-4, "losses": 1e-5}


def together(*words: str, count: int = 2) -> subprocess.CompletedProcess[str]:
    """A program on several processes, each with one thread."""
    return subprocess.run(
        [*TORCHRUN, f"--nproc-per-node={count}", *words],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
    )


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def train_words(out: Path, *words: str) -> tuple[str, ...]:
    return ("-m", "idat_zoo.cli", "train", *TINY, "--out", str(out), *words)


def differences(cases: str, kind: str, count: int = 2) -> dict[str, dict[str, float]]:
    done = together(SCRIPT, cases, kind, count=count)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def folders(out: Path) -> list[Path]:
    return sorted(path.parent for path in out.rglob("recipe.toml"))


def errors_in(text: str) -> list[str]:
    """The lines by which `idat` says why it ends."""
    return [line for line in text.splitlines() if line.startswith(("error: ", "interrupted; "))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("float64", 2),
        pytest.param("float64", 3, marks=pytest.mark.system),
        pytest.param("float32", 2, marks=pytest.mark.system),
    ],
)
def test_fields_of_recipes_train_as_on_one_process(kind: str, count: int) -> None:
    found = differences("fields", kind, count)
    _check(found, FLOAT64 if kind == "float64" else FLOAT32)
    assert len(found) == 10


@pytest.mark.system
@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_every_term_trains_as_on_one_process(kind: str) -> None:
    found = differences("terms", kind)
    _check(found, FLOAT64 if kind == "float64" else FLOAT32)
    assert found.keys() == TERMS.keys()


@pytest.mark.system
@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_every_family_trains_as_on_one_process(kind: str) -> None:
    found = differences("families", kind)
    _check(found, FLOAT64 if kind == "float64" else FLOAT32)
    assert found.keys() == ADAPTERS.keys()


def _check(found: dict[str, dict[str, float]], most: dict[str, float]) -> None:
    too_far = {
        (name, what): value
        for name, apart in found.items()
        for what, value in apart.items()
        if not value <= most[what]
    }
    assert not too_far


@pytest.mark.system
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("apart", "the 2 processes no longer hold equal networks"),
        ("silent", "another of the 2 processes that train together has ended, or was silent for"),
    ],
)
def test_a_process_that_differs_or_is_silent_ends_the_training(how: str, says: str) -> None:
    begun = time.monotonic()
    done = together(SCRIPT, how)
    assert says in done.stdout, done.stderr
    assert time.monotonic() - begun < 240


@pytest.mark.slow
def test_two_adapters_with_an_odd_batch_end_as_on_one_process(tmp_path: Path) -> None:
    words = ("--adapter", "lora,sequential", "batch_size=63", "epochs=2", "drop_path=0.2")
    words += ("distillation=dist", "watch=test")
    done = together(*train_words(tmp_path / "two", *words), "--json")
    assert done.returncode == 0, done.stderr
    alone = idat("train", *TINY, "--out", str(tmp_path / "one"), *words)
    assert alone.exit_code == 0, alone.output
    ours, theirs = folders(tmp_path / "two"), folders(tmp_path / "one")
    names = [[path.relative_to(tmp_path).parts[1:] for path in found] for found in (ours, theirs)]
    assert names[0] == names[1]  # so the hashes are, too
    assert len(ours) == 2
    assert [result["processes"] for result in json.loads(done.stdout)["results"]] == [2, 2]
    for own, other in zip(ours, theirs, strict=True):
        assert {p.name for p in own.rglob("*")} == {p.name for p in other.rglob("*")}
        for file in ("adapter_model.safetensors", "teacher/adapter_model.safetensors"):
            _check_near(own / file, other / file)
        assert "processes" not in json.loads((other / "result.json").read_bytes())
        logs = [
            [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
            for place in (own, other)
        ]
        assert [log.pop("test_top1") for log in logs[0]]
        for ours_, theirs_ in zip(*logs, strict=True):
            theirs_.pop("test_top1", None)
            assert ours_ == pytest.approx(theirs_, abs=FLOAT32["losses"])


def _check_near(own: Path, other: Path) -> None:
    ours, theirs = load_file(own), load_file(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.allclose(tensor, theirs[name], rtol=0, atol=FLOAT32["values"]), name


@pytest.mark.system
def test_two_offline_teachers_and_a_tracker_on_two_processes(tmp_path: Path) -> None:
    """The first process alone tracks; every process reads both teachers."""
    pytest.importorskip("tensorboard")
    words: tuple[str, ...] = ("--adapter", "lora", "epochs=2")
    for teacher in ("builtin:digits-lora", "builtin:digits-krona"):
        words += ("--teacher-from", teacher)
    done = together(*train_words(tmp_path / "two", *words, "--tracker", "tensorboard"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("top-1") == 1
    alone = idat("train", *TINY, "--out", str(tmp_path / "one"), *words)
    assert alone.exit_code == 0, alone.output
    (own,), (other,) = folders(tmp_path / "two"), folders(tmp_path / "one")
    assert own.relative_to(tmp_path / "two") == other.relative_to(tmp_path / "one")
    assert own.parts[-4:] == other.parts[-4:]
    _check_near(own / "adapter_model.safetensors", other / "adapter_model.safetensors")
    assert len(list((own / "tensorboard").iterdir())) == 1


@pytest.mark.system
@pytest.mark.parametrize(("count", "rank"), [(2, 1), (3, 0)])
def test_a_killed_process_ends_all_and_resume_goes_on(
    tmp_path: Path, count: int, rank: int
) -> None:
    words = ("--adapter", "lora,sequential", "epochs=8", "drop_path=0.2")
    whole = together(*train_words(tmp_path / "whole", *words), count=count)
    assert whole.returncode == 0, whole.stderr
    out = tmp_path / "killed"
    with subprocess.Popen(
        [*TORCHRUN, f"--nproc-per-node={count}", *train_words(out, *words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    ) as child:
        while sum(log.read_bytes().count(b"\n") for log in out.rglob("log.jsonl")) < 2:
            assert child.poll() is None
            time.sleep(0.02)
        os.kill(_process(child.pid, rank), signal.SIGKILL)
        killed = time.monotonic()
        text = child.communicate(timeout=120)[0]
    assert time.monotonic() - killed < 60
    assert child.returncode != 0
    assert len(errors_in(text)) == 1, text  # of the first process, or of another if it was killed
    assert "--resume" in text
    assert not [*out.rglob("result.json")]
    again = together(*train_words(out, *words), "--resume", count=count)
    assert again.returncode == 0, again.stderr
    assert "going on after epoch" in again.stderr
    both = list(zip(folders(out), folders(tmp_path / "whole"), strict=True))
    assert len(both) == 2
    assert all(same_but_for_times(own, other) for own, other in both)


def _process(launcher: int, rank: int) -> int:
    """The process of a rank among those that torchrun has started."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    (own,) = (
        int(pid)
        for pid in children
        if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    )
    return own


@pytest.mark.system
def test_a_training_goes_on_with_another_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--adapter", "lora", "epochs=8")
    launcher = [*TORCHRUN, "--nproc-per-node=2"]
    with subprocess.Popen([*launcher, *train_words(tmp_path, *words)], env=environment()) as child:
        while not any(log.read_bytes() for log in tmp_path.rglob("log.jsonl")):
            assert child.poll() is None
            time.sleep(0.02)
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=60) != 0
    alone = idat("train", *TINY, "--out", str(tmp_path), *words, "--resume")
    assert alone.exit_code == 0, alone.output
    assert "1 thread, 2 processes, and now on" in alone.stderr


@pytest.mark.system
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--adapter", "lora", "lr=1e12", "epochs=1"), 1, "the loss is not finite in epoch 1"),
        (("--adapter", "lora", "batch_size=1"), 2, "2 processes share batches of 1 images"),
        (("--adapter", "lora", "--jobs", "2"), 2, "2 processes that train one run together take"),
        (("--adapter", "lora", "--stack", "2"), 2, "2 processes that train one run together take"),
        (("--adapter", "lorra"), 2, "unknown adapter 'lorra'"),
        (("--adapter", "lora", "--no-such"), 2, "unknown option '--no-such'"),
    ],
)
def test_an_error_ends_all_processes_with_one_line(
    tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    """torchrun itself exits with 1; its report names the exit code of `idat`."""
    done = together(*train_words(tmp_path, *words))
    assert done.returncode == 1
    (line,) = errors_in(done.stderr)
    assert says in line
    assert f"exitcode  : {code} " in done.stderr
    assert done.stdout == ""


@pytest.mark.system
def test_a_process_without_the_images_is_named(tmp_path: Path) -> None:
    """The second process reads another folder of images, as on a machine that lacks some."""
    for place, count in (("first", 12), ("second", 9)):
        for split, number in (("train", count), ("test", 4)):
            for label, name in enumerate(("cat", "dog")):
                for k in range(number):
                    write_image(tmp_path / place / split / name / f"{k}.png", label, 2, seed=k)
    launcher = tmp_path / "launcher.py"
    launcher.write_text(
        "import os, sys\n"
        "from idat_zoo.cli import main\n"
        f"place = r'{tmp_path}/' + ('first', 'second')[int(os.environ['RANK'])]\n"
        "sys.argv += ['--data-dir', place]\n"
        "main()\n"
    )
    words: tuple[Any, ...] = ("train", "--task", "folder", "--adapter", "lora", *TINY[2:])
    done = together(str(launcher), *words, "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    (line,) = errors_in(done.stderr)
    assert "process 1 of 2: task 'folder-" in line
