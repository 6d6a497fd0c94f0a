"""`idat study --executor`: printed commands, Ray, and wrong words."""

import errno
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import Mock

import pytest
from command import idat
from holding import hold, random_epoch
from killing import contents

from idat_zoo import files
from idat_zoo.errors import RunFolderError
from idat_zoo.runs.lock import alone_in, holder_of, is_lock

IDAT = Path(sys.executable).with_name("idat")
SMALL = """
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
LONG = SMALL.replace("epochs = 2", "epochs = 60")
CPU = ("--device", "cpu")
OWN = os.environ | {"OMP_NUM_THREADS": "1"}
RAY = ("--executor", "ray", "--executor-option", "workers=2")


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working folder and none of a user's own variables."""
    monkeypatch.chdir(tmp_path)
    for variable in ("IDAT_SHELF", "IDAT_DATA_DIR", "IDAT_DEBUG"):
        monkeypatch.delenv(variable, raising=False)


def bits(folder: Path) -> dict[str, bytes]:
    """What the runs below a folder hold in common with equal ones."""
    return {
        name: content
        for name, content in contents(folder).items()
        if not is_lock(Path(name)) and name != "failures.json"
    }


def call(*words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [IDAT, "study", *words, *CPU],
        env=OWN,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(calling: "subprocess.Popen[str]") -> None:
    """Wait for a call that trains everything."""
    _, stderr = calling.communicate(timeout=500)
    assert calling.returncode == 0, stderr


# Printed commands


def test_printed_commands_train_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("small.toml").write_text(SMALL)
    printing = ("study", "small.toml", *CPU, "--executor", "print")
    result = idat(*printing, "--executor-option", "cpus=2")
    assert result.exit_code == 0, result.stderr
    assert not list(Path().rglob("result.json"))
    folder = Path("runs/small").resolve()
    threads = "OMP_NUM_THREADS=2 MKL_NUM_THREADS=2 OPENBLAS_NUM_THREADS=2"
    assert result.stdout.splitlines() == [
        f"env {threads} idat study small --out {folder} --pass {number} --device cpu"
        for number in (1, 2, 3, 4)
    ]
    commands = idat(*printing).stdout.splitlines()
    monkeypatch.chdir("/")
    for number, command in enumerate(commands[1:], 2):
        done = idat(*shlex.split(command)[1:])
        assert done.exit_code == 0, done.stderr
        part = f"pass {number} of 4 of study 'small': 1 of 1 runs are finished\n"
        assert done.stdout.startswith(part)
    document = json.loads(idat(*shlex.split(commands[3])[1:], "--json").stdout)
    assert (document["pass"], document["passes"], document["runs"]) == (4, 4, 1)
    monkeypatch.chdir(folder.parents[1])
    found = json.loads(idat(*printing, "--json").stdout)
    assert found["commands"] == commands[:1]
    assert idat("study", "small.toml", *CPU).exit_code == 0
    assert idat(*printing).stdout == ""
    assert idat("study", "small.toml", *CPU, "--out", "here").exit_code == 0
    assert bits(folder) == bits(Path("here"))


def test_a_printed_command_counts_failures_and_says_them() -> None:
    Path("wrong.toml").write_text(SMALL.replace('"mse"', '{name = "mse", lr = 1e30}'))
    words = ("study", "wrong.toml", *CPU, "--executor", "print")
    command = shlex.split(idat(*words).stdout.splitlines()[2])
    for count in (1, 2, 3):
        done = idat(*command[1:])
        assert done.exit_code == 3, done.output
        assert done.stderr.count(f"failed ({count} of 3 times): linear on digits, mse") == 1
    assert "left out, as it failed 3 times" in idat(*command[1:]).stderr
    assert len(idat(*words).stdout.splitlines()) == 3
    assert not list(Path("runs").glob("*/.*"))


def test_commands_carry_the_options_that_are_given(tmp_path: Path) -> None:
    Path("small.toml").write_text(SMALL)
    Path("images").mkdir()
    options = ("--data-dir", "images", "--no-prefix-cache", "--yes", "--stack", "2")
    result = idat("study", "small.toml", *CPU, *options, "--executor", "print")
    assert result.exit_code == 0, result.stderr
    (first, *rest) = result.stdout.splitlines()
    assert len(rest) == 1
    words = shlex.split(first)
    assert words[words.index("--pass") + 2 :] == [
        *("--device", "cpu", "--data-dir", str(tmp_path / "images"), "--yes"),
        "--no-prefix-cache",
    ]
    assert idat(*words[1:]).exit_code == 0
    assert len(list(Path("runs").rglob("result.json"))) == 2


# Ray


@pytest.fixture
def undisturbed_machine() -> Iterator[None]:
    """A test after which neither a process nor a temporary folder of Ray is left."""
    yield
    deadline = time.monotonic() + 60
    while of_ray() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert of_ray() == []


def of_ray() -> list[str]:
    """The temporary folders of our Ray, and the processes that were started with them."""
    found = [str(path) for path in Path("/tmp").glob("idat-ray-*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "idat-ray-" in words or words.startswith("ray::"):
            found.append(words.replace("\0", " ")[:100])
    return found


@pytest.mark.system
@pytest.mark.usefixtures("undisturbed_machine")
def test_ray_gives_the_same_bits_though_a_worker_or_the_engine_is_killed() -> None:
    Path("long.toml").write_text(LONG)
    finish(call("long.toml", "--out", "local"))
    there = call("long.toml", "--out", "there", *RAY)
    worker = hold(Path("there"), there, epochs=random_epoch("a worker of Ray"))
    assert worker.pid != there.pid
    worker.kill()
    finish(there)
    assert bits(Path("local")) == bits(Path("there"))
    again = call("long.toml", "--out", "again", *RAY)
    held = hold(Path("again"), again, epochs=random_epoch("Ray's raylet"))
    os.kill(raylet(), signal.SIGKILL)
    held.stay()
    stdout, stderr = again.communicate(timeout=300)
    assert again.returncode == 3, stderr
    assert "not trained: linear on digits" in stderr
    assert "failed (" not in stderr
    assert stdout.startswith("study 'long': ")
    assert "raylet" not in stdout  # of Ray itself
    finish(call("long.toml", "--out", "again", *RAY))
    assert bits(Path("local")) == bits(Path("again"))


def raylet() -> int:
    """The process of our Ray that starts its workers."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            program, *words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if program.endswith(b"/raylet") and any(b"idat-ray-" in word for word in words):
            return int(process.name)
    raise AssertionError("there is no raylet")


@pytest.mark.system
def test_a_killed_call_leaves_nothing_and_the_same_command_goes_on() -> None:
    Path("long.toml").write_text(LONG)
    there = call("long.toml", "--out", "there", *RAY)
    held = hold(Path("there"), there, epochs=random_epoch("the call of Ray"))
    there.kill()
    there.communicate()
    held.stay()
    deadline = time.monotonic() + 60
    while of_ray():
        assert time.monotonic() < deadline, of_ray()
        time.sleep(0.5)
    finish(call("long.toml", "--out", "there", *RAY))
    assert of_ray() == []
    finish(call("long.toml", "--out", "local"))
    assert bits(Path("local")) == bits(Path("there"))


# Wrong words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--executor", "rya"], "unknown executor 'rya'. Did you mean 'ray'?"),
        (
            ["--executor", "ray", "--executor-option", "cpu=2"],
            "unknown option of executor 'ray' 'cpu'. Did you mean 'cpus' or 'gpus'?",
        ),
        (["--executor", "ray", "--executor-option", "cpus=x"], "executor 'ray': cpus: must be"),
        (["--executor", "ray", "--executor-option", "cpus=0"], "executor 'ray': cpus: must be"),
        (["--executor", "print", "--executor-option", "cpus"], "--executor-option takes KEY=VALUE"),
        (
            ["--executor", "ray", *(2 * ["--executor-option", "cpus=1"])],
            "--executor-option cpus is given twice.",
        ),
        (["--executor-option", "cpus=1"], "executor 'local' has no options; got 'cpus'."),
        (["--executor", "ray", "--jobs", "2"], "--jobs belongs to the executor 'local'"),
        (["--pass", "1", "--dry-run"], "--pass trains one pass of a stored plan; leave out"),
        (["--pass", "1", "--executor", "print"], "--pass trains one pass of a stored plan"),
        (
            ["--executor", "ray", "--executor-option", "gpus=1"],
            "Ray gives each pass its GPUs, and the device is 'cpu'.",
        ),
    ],
)
def test_wrong_words_are_one_clear_error(words: list[str], message: str) -> None:
    Path("small.toml").write_text(SMALL)
    result = idat("study", "small.toml", *CPU, *words)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert [line for line in result.stderr.splitlines() if line.startswith("error: ")] == [
        line for line in result.stderr.splitlines() if line.startswith(f"error: {message}")
    ]
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.stderr
    assert not list(Path().rglob("result.json"))


def test_a_pass_needs_a_plan_that_has_it() -> None:
    Path("small.toml").write_text(SMALL)
    result = idat("study", "small.toml", *CPU, "--pass", "1")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: 'runs/small' holds no study: there is no plan.json.")
    assert idat("study", "small.toml", *CPU, "--executor", "print").exit_code == 0
    result = idat("study", "small.toml", *CPU, "--pass", "5")
    assert result.exit_code == 2
    assert "study 'small' has no pass 5; they are 1 to 4." in result.stderr


def test_an_engine_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("small.toml").write_text(SMALL)
    monkeypatch.setattr("idat_zoo.executors.ray.find_spec", lambda name: None)
    result = idat("study", "small.toml", *CPU, "--executor", "ray")
    assert result.exit_code == 2
    assert "error: the executor 'ray' needs Ray, which is not installed.\n" in result.stderr
    assert "pip install 'idat-zoo[ray]'" in result.stderr


def test_an_address_without_a_cluster_is_one_line() -> None:
    Path("small.toml").write_text(SMALL)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        option = ("--executor-option", f"address={address}")
        result = idat("study", "small.toml", *CPU, "--executor", "ray", *option)
        assert result.exit_code == 2
        assert f"error: no Ray at '{address}': [Errno 111] Connection refused\n" in result.stderr
        assert result.stderr.count("error: ") == 1
    assert not list(Path().rglob("result.json"))


# A full disk, and two calls at the same time


def test_a_full_disk_is_one_line_a_run_and_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two runs cannot be written, and neither can the count of failures."""
    Path("small.toml").write_text(SMALL)
    whole = files.write_whole

    def full_for_some(path: Path, content: bytes) -> None:
        if path.name == "failures.json" or (path.parent.name == "seed1" and path.suffix != ".toml"):
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise files._unwritable(path, error) from error
        whole(path, content)

    monkeypatch.setattr(files, "write_whole", full_for_some)
    for _ in range(4):  # more often than a run may fail
        result = idat("study", "small.toml", *CPU)
        assert result.exit_code == 3, result.output
        lines = [line for line in result.stderr.splitlines() if line.startswith("failed")]
        assert [line.partition(": cannot write '")[0] for line in lines] == [
            "failed: linear on digits, none, seed 1",
            "failed: linear on digits, mse, seed 1",
        ]
        assert all(line.endswith(": No space left on device") for line in lines)
        assert "2 of 4 runs are finished, 2 failed" in result.stdout
        assert "Traceback" not in result.stderr
    monkeypatch.setattr(files, "write_whole", whole)
    assert idat("study", "small.toml", *CPU).exit_code == 0


def test_a_lock_that_cannot_be_written_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        patch.setattr("idat_zoo.runs.lock._write_owner", Mock(side_effect=full))
        with (
            pytest.raises(RunFolderError, match="No space left on device"),
            alone_in(tmp_path, wait=False, note=print),
        ):
            raise AssertionError("the lock is held")
    with alone_in(tmp_path, wait=False, note=print):
        assert holder_of(tmp_path) is not None


@pytest.mark.slow
def test_passes_of_calls_at_the_same_time_train_no_run_twice() -> None:
    """Each of two calls is given every pass, in opposite orders."""
    Path("small.toml").write_text(SMALL.replace("epochs = 2", "epochs = 20"))
    printed = idat("study", "small.toml", *CPU, "--executor", "print").stdout.splitlines()
    orders = (printed, printed[::-1])
    with ExitStack() as calls:
        ended = [
            calls.enter_context(
                subprocess.Popen(
                    ["sh", "-c", "; ".join(order)],
                    env=OWN | {"PATH": f"{IDAT.parent}:{os.environ['PATH']}"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            ).communicate
            for order in orders
        ]
        told = [own(timeout=300)[1] for own in ended]
    assert len(list(Path("runs").rglob("result.json"))) == 4, told
    for log in Path("runs").rglob("log.jsonl"):
        assert log.read_bytes().count(b"\n") == 20
    assert not list(Path("runs").rglob("failures.json")), told
