"""The lock of a run's folder: one process in it at a time."""

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from filelock import Timeout
from toy_runs import WRITTEN, Notes, below, same_but_for_times, trained

from conftest import toy_recipe
from idat_zoo.engine.precision import resolve_precision
from idat_zoo.errors import RunFolderError
from idat_zoo.results import load_result
from idat_zoo.runs import lock as run_lock
from idat_zoo.runs.folder import run_folder
from idat_zoo.runs.lock import holder_of
from idat_zoo.runs.many import run
from idat_zoo.study import failures

CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import toy_recipe
from idat_zoo.engine.train import Trainer
from idat_zoo.runs.many import run
from idat_zoo.study import failures

out, slowly = Path(sys.argv[1]), Trainer.train_epoch

def train_epoch(self, epoch, *rest):
    print("epoch", epoch, flush=True)
    if epoch == 1:
        while not (out / "go").exists():
            time.sleep(0.02)
    return slowly(self, epoch, *rest)

Trainer.train_epoch = train_epoch
run(toy_recipe(), device="cpu", out=out)
"""


@contextlib.contextmanager
def training(out: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains the toy recipe, and rests after an epoch until `go` is there."""
    tests = str(Path(__file__).parent.parent)
    command = [sys.executable, "-c", CHILD.format(tests=tests), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while child.stdout.readline() != "epoch 1\n":
            assert child.poll() is None
        try:
            yield child
        finally:
            child.kill()


def toy_folder(out: Path) -> Path:
    return run_folder(out, resolve_precision(toy_recipe(), torch.device("cpu")), 0)


def test_a_second_process_in_a_folder_is_refused_or_waits(tmp_path: Path) -> None:
    with training(tmp_path) as child:
        folder = toy_folder(tmp_path)
        holder = holder_of(folder)
        assert holder is not None
        assert (holder.pid, holder.host) == (child.pid, socket.gethostname())
        told = rf"in use by process {child.pid} on '.+' \(since 20[\s\S]*--wait"
        before = below(folder)
        for resume in (False, True):
            with pytest.raises(RunFolderError, match=told):
                run(toy_recipe(), device="cpu", out=tmp_path, resume=resume)
        assert below(folder) == before
        heard = Notes()

        def go_on(text: str) -> None:
            heard.told.append(text)
            (tmp_path / "go").touch()

        heard.note = go_on  # type: ignore[method-assign]
        waited = run(toy_recipe(), device="cpu", out=tmp_path, wait=True, progress=heard)
        assert child.wait() == 0
    assert heard.told[0].startswith(f"waiting for process {child.pid} on ")
    assert heard.told[1:] == [f"finished before: {folder}"]
    assert waited == load_result(folder / "result.json")
    assert below(folder).keys() == WRITTEN


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with training(tmp_path / "a") as child:
        child.kill()
        child.wait()
    folder = toy_folder(tmp_path / "a")
    assert (folder / ".lock").exists()
    assert holder_of(folder) is None
    with pytest.raises(RunFolderError, match="unfinished run"):
        run(toy_recipe(), device="cpu", out=tmp_path / "a")
    run(toy_recipe(), device="cpu", out=tmp_path / "a", resume=True)
    assert same_but_for_times(folder, trained(toy_recipe(), tmp_path / "b"))


DYING = """
import os, sys
from pathlib import Path
from idat_zoo.runs import lock

folder, moment = Path(sys.argv[1]), sys.argv[2]
unlink = Path.unlink

def unlink_and_die(self, **options):
    unlink(self, **options)
    os._exit(9)

if moment == "creating":  # the marker, which has no content yet
    os.write = lambda *_: os._exit(9)
elif moment == "taking":
    lock._write_owner = lambda folder: os._exit(9)
else:
    Path.unlink = unlink_and_die
with lock.alone_in(folder, wait=False, note=print):
    pass
"""


@pytest.mark.parametrize("moment", ["taking", "giving back"])
def test_one_that_died_between_the_two_files_of_the_lock_holds_nothing(
    moment: str, tmp_path: Path
) -> None:
    run(toy_recipe(), device="cpu", out=tmp_path)
    folder = toy_folder(tmp_path)
    command = [sys.executable, "-c", DYING, str(folder), moment]
    assert subprocess.run(command, check=False).returncode == 9
    assert below(folder).keys() == WRITTEN | {".lock"}
    assert holder_of(folder) is None
    run(toy_recipe(), device="cpu", out=tmp_path)
    assert below(folder).keys() == WRITTEN


def test_one_that_died_as_it_created_the_lock_is_known_by_what_it_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", DYING, str(folder), "creating"]
    assert subprocess.run(command, check=False).returncode == 9
    left = below(folder)
    (announced,) = left.keys() - {".lock"}
    assert announced.startswith(".lock.of.")
    assert left[".lock"] == b""
    shared = folder / f"{announced}-elsewhere"
    shared.touch()  # of another machine, which nobody here can tell alive or dead
    with (
        pytest.raises(RunFolderError, match="in use"),
        run_lock.alone_in(folder, wait=False, note=print),
    ):
        pass
    assert below(folder).keys() == {".lock", announced, shared.name}
    shared.unlink()
    begun = time.monotonic()
    with run_lock.alone_in(folder, wait=False, note=print):
        assert holder_of(folder) is not None
        assert below(folder).keys() == {".lock", ".owner.json"}
    assert time.monotonic() - begun < run_lock.LEASE / 4
    assert not below(folder)


def held_elsewhere(folder: Path, *, silent: float) -> None:
    """The marks of a process on another machine, as it leaves them."""
    folder.mkdir(parents=True)
    lock = folder / ".lock"
    lock.write_text(
        "filelock/2\npid=4711\nhost=gpu7\nmode=lease\ntoken=abc\n"
        f"duration={run_lock.LEASE!r}\nstart=1\n"
    )
    owner = {"host": "gpu7", "pid": 4711, "since": "2026-11-27T08:00:00+00:00"}
    (folder / ".owner.json").write_text(json.dumps(owner))
    os.utime(lock, (time.time() - silent,) * 2)


def test_a_live_process_of_another_host_is_named(tmp_path: Path) -> None:
    folder = toy_folder(tmp_path)
    held_elsewhere(folder, silent=40)
    told = r"process 4711 on 'gpu7' \(since 2026-11-27T08:00:00\+00:00, last sign of life 4\d s ago"
    with pytest.raises(RunFolderError, match=told):
        run(toy_recipe(), device="cpu", out=tmp_path)
    assert below(folder).keys() == {".lock", ".owner.json"}
    assert holder_of(folder) is not None


def test_a_dead_process_of_another_host_is_watched_and_then_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "LEASE", 2.0)
    folder = toy_folder(tmp_path)
    held_elsewhere(folder, silent=3600)
    assert holder_of(folder) is None
    heard, started = Notes(), time.monotonic()
    run(toy_recipe(), device="cpu", out=tmp_path, progress=heard)
    assert time.monotonic() - started > 1.9
    assert "process 4711 on 'gpu7'" in heard.told[0]
    assert "is taken for dead unless" in heard.told[0]
    assert "taken over" in heard.told[1]
    assert below(folder).keys() == WRITTEN


def left_empty(folder: Path, *, silent: float) -> None:
    """An empty marker, as a crash of the machine leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".lock").touch()
    os.utime(folder / ".lock", (time.time() - silent,) * 2)


@pytest.mark.parametrize("wait", [False, True])
def test_an_empty_marker_is_watched_and_then_taken_over(
    wait: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "LEASE", 2.0)
    left_empty(tmp_path, silent=3600)
    assert holder_of(tmp_path) is None
    heard: list[str] = []
    started = time.monotonic()
    with run_lock.alone_in(tmp_path, wait=wait, note=heard.append):
        assert time.monotonic() - started > 1.9
        holder = holder_of(tmp_path)
        assert holder is not None
        assert holder.pid == os.getpid()
    assert len(heard) == 1
    assert "a process without a name (last sign of life 360" in heard[0]
    assert not below(tmp_path)


def test_an_empty_marker_that_is_renewed_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_empty(tmp_path, silent=0)
    told = r"in use by a process without a name \(last sign of life \d s ago\)"
    with (
        pytest.raises(RunFolderError, match=told),
        run_lock.alone_in(tmp_path, wait=False, note=print),
    ):
        pass
    monkeypatch.setattr(run_lock, "LEASE", 0.4)
    lease, renewals = run_lock.lease_of(tmp_path / ".lock"), itertools.count()
    acquire_once = lease.acquire

    def acquire_and_renew(**options: float) -> object:
        os.utime(tmp_path / ".lock", (next(renewals),) * 2)
        return acquire_once(**options)

    monkeypatch.setattr(lease, "acquire", acquire_and_renew)
    with pytest.raises(Timeout):
        run_lock.acquire(lease, timeout=0.9)
    assert (tmp_path / ".lock").read_bytes() == b""


def test_an_empty_marker_in_a_finished_run_is_removed_at_once(tmp_path: Path) -> None:
    run(toy_recipe(), device="cpu", out=tmp_path)
    folder = toy_folder(tmp_path)
    left_empty(folder, silent=3600)
    run(toy_recipe(), device="cpu", out=tmp_path)
    assert below(folder).keys() == WRITTEN


def test_one_that_lost_its_folder_writes_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "LEASE", 0.2)
    folder = tmp_path / "run"
    with run_lock.alone_in(folder, wait=False, note=print) as still_ours:
        still_ours()
        (folder / ".lock").unlink()
        held_elsewhere(tmp_path / "other", silent=0)
        for name in (".lock", ".owner.json"):
            (tmp_path / "other" / name).rename(folder / name)
        time.sleep(0.5)
        with pytest.raises(RunFolderError, match="was taken over by process 4711 on 'gpu7'"):
            still_ours()
    assert below(folder).keys() == {".lock", ".owner.json"}


def test_a_finished_run_is_told_to_all_whatever_lies_beside_it(tmp_path: Path) -> None:
    first = run(toy_recipe(), device="cpu", out=tmp_path)
    folder = toy_folder(tmp_path)
    held_elsewhere(tmp_path / "other", silent=0)
    (tmp_path / "other" / ".lock").rename(folder / ".lock")  # held: by a process about to end
    assert run(toy_recipe(), device="cpu", out=tmp_path) == first


def test_the_failures_of_a_study_outlast_a_dead_process_of_another_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failures.PATIENCE > run_lock.LEASE  # or such a process would hold them for ever
    monkeypatch.setattr(run_lock, "LEASE", 1.0)
    held_elsewhere(tmp_path / "other", silent=3600)
    (tmp_path / "other" / ".lock").rename(tmp_path / ".failures.json.lock")
    error = RunFolderError("no room")
    assert failures.Failures(tmp_path).add("a/seed0", error).count == 1
    left_empty(tmp_path, silent=3600)
    (tmp_path / ".lock").rename(tmp_path / ".failures.json.lock")
    assert failures.Failures(tmp_path).add("a/seed0", error).count == 2
