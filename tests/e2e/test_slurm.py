"""A study on a real Slurm of one node: the same bytes as here, also when jobs are ended."""

import threading
import time
from pathlib import Path

import pytest
from killing import contents
from slurm_node import PARTITION, Node
from study_killing import study

from conftest import Notes
from idat_zoo.errors import UsageError
from idat_zoo.executors.slurm import SlurmExecutor, SlurmOptions
from idat_zoo.runs.lock import is_lock
from idat_zoo.study.train import StudyOutcome, run_study

pytestmark = pytest.mark.system
OPTIONS = SlurmOptions(partition=PARTITION, time="20", mem="1500M")


def on_slurm(
    out: Path, *, epochs: int = 2, options: SlurmOptions = OPTIONS, notes: Notes | None = None
) -> StudyOutcome:
    train_turns = SlurmExecutor(options, folder=out).train
    return run_study(
        study(epochs), out=out, device="cpu", progress=notes or Notes(), train_turns=train_turns
    )


def files_of(out: Path) -> dict[str, bytes]:
    return {name: own for name, own in contents(out).items() if not is_lock(Path(name))}


def wait_for_epochs(out: Path, number: int) -> None:
    """Wait until a run has saved so many epochs."""
    deadline = time.monotonic() + 120
    while not any(len(file.read_text().splitlines()) >= number for file in out.rglob("log.jsonl")):
        assert time.monotonic() < deadline, "no epoch was saved"
        time.sleep(0.2)


def in_background(out: Path, epochs: int, notes: Notes) -> tuple[threading.Thread, list]:
    """A call of the study in a thread, and where its outcome will be."""
    found: list[StudyOutcome] = []
    thread = threading.Thread(
        target=lambda: found.append(on_slurm(out, epochs=epochs, notes=notes))
    )
    thread.start()
    return thread, found


def test_slurm_runs_a_command(slurm: Node) -> None:
    assert slurm.call("srun", "--partition", PARTITION, "echo", "here") == "here"
    assert slurm.jobs() == []


def test_a_study_ends_in_the_same_bytes_as_here(slurm: Node, tmp_path: Path) -> None:
    run_study(study(2), out=tmp_path / "here", device="cpu")
    outcome = on_slurm(tmp_path / "there")
    assert outcome.is_complete, outcome.failed
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")
    assert slurm.jobs() == []
    before = slurm.call("squeue", "-h", "--states=all", "-o", "%i")
    assert on_slurm(tmp_path / "there").is_complete
    assert slurm.call("squeue", "-h", "--states=all", "-o", "%i") == before


def test_a_cancelled_job_is_one_line_and_the_same_call_goes_on(slurm: Node, tmp_path: Path) -> None:
    out, notes = tmp_path / "there", Notes()
    thread, found = in_background(out, 60, notes)
    wait_for_epochs(out, 3)
    running = slurm.call("squeue", "-h", "-r", "--states=running", "-o", "%i").split()
    slurm.call("scancel", running[0])
    thread.join(200)
    (outcome,) = found
    assert (len(outcome.results), len(outcome.failed)) == (3, 1)
    (error,) = outcome.failed.values()
    assert f"Slurm job {running[0]} ended (cancelled): " in error.message
    assert "\n" not in error.message
    assert "CANCELLED" in error.message
    assert on_slurm(out, epochs=60).is_complete
    run_study(study(60), out=tmp_path / "here", device="cpu")
    theirs = {k: v for k, v in files_of(out).items() if not k.startswith(("slurm/", "failures"))}
    assert theirs == files_of(tmp_path / "here")


def test_a_partition_that_does_not_exist(slurm: Node, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        on_slurm(tmp_path / "there", options=SlurmOptions(partition="gpu"))
    assert caught.value.message == "Slurm has no partition 'gpu'; there are: test, closed"
    assert slurm.jobs() == []
