"""`idat study --executor slurm` with commands of Slurm that are missing, or that only pretend."""

import json
from pathlib import Path

import pytest
from command import idat

from idat_zoo.executors.slurm_options import minutes_of, parameters_of

SMALL = """
title = "A small study"
reference = "none"
pair = "tiny_random"

[[part]]
tasks = ["digits"]
adapters = ["linear"]
terms = ["none"]
seeds = [0]
set = {epochs = 2, warmup_epochs = 0}
"""
SLURM = ("--device", "cpu", "--executor", "slurm", "--executor-option", "partition=debug")


class Pretended:
    """A folder of commands of Slurm that print what a test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("sbatch", "srun", "squeue", "scancel"):
            self.says(name, "")
        self.says("sinfo", "debug*\nlong\n")

    def says(self, name: str, text: str, *, fails: bool = False) -> None:
        """Let a command print a text, to stderr if it fails."""
        file = self.folder / name
        channel = ">&2" if fails else ""
        file.write_text(f"#!/bin/sh\ncat {channel} <<'END'\n{text}\nEND\nexit {int(fails)}\n")
        file.chmod(0o755)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pretended:
    """Commands of Slurm on PATH, and a small study in an empty working folder."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.delenv("IDAT_SHELF", raising=False)
    Path("small.toml").write_text(SMALL)
    return Pretended(tmp_path / "bin")


def one_error(*words: str) -> str:
    """What a call says that trains nothing and ends with exit code 2."""
    result = idat("study", "small.toml", *SLURM, *words)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert "Traceback" not in result.stderr
    assert not list(Path().rglob("result.json"))
    assert not list(Path().rglob("slurm"))
    assert not list(Path().rglob("failures.json"))
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line.removeprefix("error: ")


def test_no_sbatch_on_this_machine(pretended: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(pretended.folder))
    (pretended.folder / "sbatch").unlink()
    assert one_error() == "no sbatch is found: this machine submits no jobs to Slurm."


def test_submitit_is_not_installed(pretended: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idat_zoo.executors.slurm.find_spec", lambda name: None)
    assert one_error() == "the executor 'slurm' needs submitit, which is not installed."


def test_a_controller_that_does_not_answer(pretended: Pretended) -> None:
    message = "slurm_load_partitions: Unable to contact slurm controller (connect failure)"
    pretended.says("sinfo", message, fails=True)
    assert one_error() == f"Slurm's controller does not answer: {message}"


def test_a_partition_that_does_not_exist(pretended: Pretended) -> None:
    pretended.says("sinfo", "gpu*\nlong")
    assert one_error() == "Slurm has no partition 'debug'; there are: gpu, long"


def test_jobs_that_are_refused_count_as_no_failure(pretended: Pretended) -> None:
    said = "Batch job submission failed: Invalid account or account/partition combination specified"
    pretended.says("sbatch", f"sbatch: error: {said}", fails=True)
    for _ in range(4):
        assert one_error() == f"Slurm refused the job: {said}"


def test_a_job_that_vanishes_is_one_line(
    pretended: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idat_zoo.executors.slurm_job.LAG", 0.0)
    pretended.says("sbatch", "Submitted batch job 7")
    result = idat("study", "small.toml", *SLURM)
    assert result.exit_code == 3, result.output
    assert "none, seed 0: Slurm job 7 ended\n" in result.stderr
    assert result.stdout.startswith("study 'small': 0 of 1 runs are finished, 1 failed\n")


def test_a_queued_job_is_taken_up_and_in_the_status(
    pretended: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idat_zoo.executors.slurm_job.LAG", 0.0)
    pretended.says("sbatch", "Submitted batch job 7")
    assert idat("study", "small.toml", *SLURM).exit_code == 3
    (array,) = Path("runs/small/slurm").iterdir()
    pretended.says("squeue", f"7|PENDING|Priority|{array.name}")
    document = json.loads(idat("study", "status", "small", "--json").stdout)
    (run,) = document["unfinished"]
    assert (run["state"], run["holder"]) == ("queued", "Slurm job 7 (pending)")
    assert "queued: linear on digits, none, seed 0: Slurm job 7 (pending)" in (
        idat("study", "status", "small").stdout
    )
    pretended.says("sbatch", "a second job", fails=True)
    pretended.says("squeue", f"7|CANCELLED|None|{array.name}")
    assert "refused" in one_error_of_refusal()
    counted = pretended.folder / "asked"
    script = f"#!/bin/sh\necho x >> {counted}\n"
    script += f"test $(wc -l < {counted}) -lt 2 && state=PENDING || state=CANCELLED\n"
    script += f'echo "7|$state|None|{array.name}"\n'
    (pretended.folder / "squeue").write_text(script)
    result = idat("study", "small.toml", *SLURM)
    assert result.exit_code == 3, result.output
    assert "Slurm job 7 of an earlier call goes on: pending" in result.stderr
    assert "Slurm job 7 ended (cancelled)" in result.stderr
    pretended.says("squeue", "slurm_load_jobs error: Unable to contact", fails=True)
    status = idat("study", "status", "small")
    assert status.exit_code == 0, status.output
    assert "Slurm does not list its jobs: slurm_load_jobs error: Unable to contact" in status.stderr


def one_error_of_refusal() -> str:
    result = idat("study", "small.toml", *SLURM)
    assert result.exit_code == 2, result.output
    return result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["time=soon"], "executor 'slurm': time: write minutes, or hours:minutes:seconds, or"),
        (["cpus=0"], "executor 'slurm': cpus: must be greater than or equal to 1"),
        (["sbatch=-N 2"], "executor 'slurm': sbatch: write --NAME=VALUE or --NAME, and not '-N'"),
        (["sbatch=--array=0-3"], "executor 'slurm': sbatch: --array is set by idat-zoo"),
        (["partitoin=long"], "unknown option of executor 'slurm' 'partitoin'. Did you mean 'p"),
        (["gpus=1"], "Slurm gives each pass its GPUs, and the device is 'cpu'."),
    ],
)
def test_wrong_options_are_one_error(pretended: Pretended, words: list[str], message: str) -> None:
    given = [word for one in words for word in ("--executor-option", one)]
    assert one_error(*given).startswith(message)


@pytest.mark.parametrize(
    ("time", "minutes"),
    [("30", 30), ("0", 1), ("90:30", 91), ("2:00:00", 120), ("1-12", 2160), ("1-0:30", 1470)],
)
def test_time_limits_are_those_of_slurm(time: str, minutes: int) -> None:
    assert minutes_of(time) == minutes


def test_further_parameters_of_sbatch() -> None:
    found = parameters_of("--exclusive --gres=gpu:a100:1 '--comment=two words'")
    assert found == {"exclusive": True, "gres": "gpu:a100:1", "comment": "two words"}
