"""`idat study --executor slurm` on a real Slurm of one node, also when jobs and calls are ended."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from command import idat
from holding import Held, environment_of, hold, random_epoch
from killing import contents
from slurm_node import PARTITION, Node, running_slurm

from idat_zoo.runs.lock import is_lock

pytestmark = pytest.mark.system
IDAT = Path(sys.executable).with_name("idat")
SMALL = """
title = "A small study"
reference = "none"
pair = "tiny_random"

[[part]]
tasks = ["digits"]
adapters = ["linear"]
terms = ["none", "mse"]
seeds = [0]
set = {epochs = 2, warmup_epochs = 0}
"""
LONG = SMALL.replace("epochs = 2", "epochs = 60")
ONE = LONG.replace('"none", "mse"', '"none"')
CPU = ("--device", "cpu")
SLURM = ("--executor", "slurm", "--executor-option", f"partition={PARTITION}")
NOT_RUNS = ("failures.json", "plan.json", "slurm/")


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working folder, one thread here as in each job, and a disk without delay."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("idat_zoo.executors.slurm_job.LAG", 1.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def bits(folder: Path) -> dict[str, bytes]:
    """What the runs below a folder hold in common with equal ones."""
    return {
        name: content
        for name, content in contents(folder).items()
        if not is_lock(Path(name)) and not name.startswith(NOT_RUNS)
    }


def wait_until(condition: Callable[[], object], what: str, *, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def submitted(slurm: Node) -> set[str]:
    """The ids of all jobs that were ever submitted; elements of arrays apart."""
    return set(slurm.call("squeue", "-h", "-r", "--states=all", "-o", "%i").split())


def call(*words: str, stderr: "IO[str] | int" = subprocess.PIPE) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [IDAT, "study", *words, *CPU, *SLURM],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def here(*words: str) -> str:
    """A call in this process that trains everything; what it wrote to stderr."""
    result = idat("study", *words, *CPU)
    assert result.exit_code == 0, result.output
    return result.stderr


def finish(calling: "subprocess.Popen[str]") -> str:
    """Wait for a call that trains everything; what it wrote to stderr."""
    _, stderr = calling.communicate(timeout=300)
    assert calling.returncode == 0, stderr
    return stderr


def test_a_study_gives_the_same_bits_as_here(slurm: Node) -> None:
    Path("small.toml").write_text(SMALL)
    before = submitted(slurm)
    here("small.toml", "--out", "there", *SLURM)
    here("small.toml", "--out", "here")
    assert bits(Path("there")) == bits(Path("here"))
    assert not Path("there/slurm").exists()
    wait_until(lambda: slurm.jobs() == [], "jobs go on")
    after = submitted(slurm)
    assert len(after - before) == 2
    here("small.toml", "--out", "there", *SLURM)
    assert submitted(slurm) == after


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the runs of the long study hold that were trained here."""
    root = tmp_path_factory.mktemp("undisturbed")
    (root / "long.toml").write_text(LONG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        here(str(root / "long.toml"), "--out", str(root / "here"))
    return bits(root / "here")


def check_same(out: Path, undisturbed: dict[str, object], *, runs: int) -> None:
    """Compare the runs of a study, or of a part of it, with those of the long study."""
    found = bits(out)
    assert sum(name.endswith("result.json") for name in found) == runs
    assert {name: undisturbed.get(name) for name in found} == found
    assert len(found) * 2 == len(undisturbed) * runs
    assert not (out / "slurm").exists()


def test_a_cancelled_job_is_one_line_and_the_same_command_goes_on(
    slurm: Node, undisturbed: dict[str, object]
) -> None:
    Path("long.toml").write_text(LONG)
    before = submitted(slurm)
    calling = call("long.toml", "--out", "there")
    held = hold(Path("there"), calling, epochs=random_epoch("cancelled"))
    job = job_of(held)
    slurm.call("scancel", job)
    held.stay()
    stdout, stderr = calling.communicate(timeout=300)
    assert calling.returncode == 3, stderr
    assert "1 of 2 runs are finished, 1 failed" in stdout
    assert "Traceback" not in stderr
    (line,) = [line for line in stderr.splitlines() if "failed (1 of 3 times)" in line]
    assert f"Slurm job {job} ended (cancelled): " in line
    assert "CANCELLED" in line
    here("long.toml", "--out", "there", *SLURM)
    assert len(submitted(slurm) - before) == 3
    check_same(Path("there"), undisturbed, runs=2)


def job_of(held: Held) -> str:
    """The id of the job that a process belongs to."""
    own = environment_of(held.pid)
    return f"{own['SLURM_ARRAY_JOB_ID']}_{own['SLURM_ARRAY_TASK_ID']}"


def test_a_study_goes_on_though_slurm_itself_is_killed(undisturbed: dict[str, object]) -> None:
    """Controller and node's daemon end at once; the job that runs then ends while they are gone."""
    Path("long.toml").write_text(LONG)
    with running_slurm() as node, pytest.MonkeyPatch.context() as patch:
        for name, value in node.environment.items():
            patch.setenv(name, value)
        with Path("said").open("w") as said:
            calling = call("long.toml", "--out", "there", stderr=said)
            held = hold(Path("there"), calling, epochs=random_epoch("Slurm itself"))
            node.kill_engine()
            silence = "Slurm does not answer, and is asked again: "
            wait_until(lambda: silence in Path("said").read_text(), "Slurm is not asked")
            held.go_on()
            wait_until((held.folder / "result.json").exists, "the job has ended, too")
            node.start_engine()
            calling.communicate(timeout=300)
        assert calling.returncode == 0, Path("said").read_text()
        check_same(Path("there"), undisturbed, runs=2)


def test_jobs_of_a_killed_call_go_on_and_are_taken_up(
    slurm: Node, undisturbed: dict[str, object]
) -> None:
    Path("long.toml").write_text(LONG)
    before = submitted(slurm)
    killed = call("long.toml", "--out", "there")
    held = hold(Path("there"), killed, epochs=random_epoch("the call"))
    killed.kill()
    killed.communicate()
    held.go_on()
    jobs = submitted(slurm) - before
    assert len(jobs) == 2
    status = json.loads(idat("study", "status", "long", "--out", "there", "--json").stdout)
    assert {own["state"] for own in status["unfinished"]} <= {"running", "queued"}
    assert "of an earlier call goes on" in here("long.toml", "--out", "there", *SLURM)
    assert submitted(slurm) - before == jobs
    check_same(Path("there"), undisturbed, runs=2)


def test_a_job_at_its_time_limit_is_requeued_and_goes_on(
    slurm: Node, undisturbed: dict[str, object]
) -> None:
    """The process is stopped until Slurm's warning comes, however fast the machine is."""
    Path("one.toml").write_text(ONE)
    before = submitted(slurm)
    calling = call("one.toml", "--out", "there", "--executor-option", "time=1")
    held = hold(Path("there"), calling, epochs=random_epoch("time limit"))
    try:
        wait_until(lambda: has_come(held.pid, signal.SIGUSR2), "no warning came")
    finally:
        held.go_on()
    (job,) = submitted(slurm) - before
    finish(calling)
    assert submitted(slurm) - before == {job}
    assert "Restarts=1 " in slurm.call("scontrol", "show", "job", job)
    check_same(Path("there"), undisturbed, runs=1)


def has_come(pid: int, number: signal.Signals) -> bool:
    """Whether a signal waits for a process or, where Slurm sent SIGCONT with it, has ended it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return True
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


@pytest.mark.usefixtures("slurm")
def test_a_job_over_its_memory_is_one_line_and_the_same_command_goes_on(
    undisturbed: dict[str, object],
) -> None:
    Path("one.toml").write_text(ONE)
    words = ("one.toml", "--out", "there", *SLURM, "--executor-option")
    result = idat("study", *words, "mem=60M", *CPU)
    assert result.exit_code == 3, result.output
    assert "0 of 1 runs are finished, 1 failed" in result.stdout
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if "failed (1 of 3 times)" in line]
    assert "Slurm job " in line
    assert "Exceeded job memory limit" in line
    here(*words, "mem=1500M")
    check_same(Path("there"), undisturbed, runs=1)


def test_a_partition_that_does_not_exist_is_told_before_anything_is_queued(slurm: Node) -> None:
    Path("small.toml").write_text(SMALL)
    before = submitted(slurm)
    result = idat("study", "small.toml", *CPU, *SLURM[:3], "partition=gpu")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "error: Slurm has no partition 'gpu'; there are: test, closed\n" in result.stderr
    assert submitted(slurm) == before
