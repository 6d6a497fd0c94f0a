"""`--jobs` and `run_many(jobs=…)`: several worker processes for one command, and how they end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import write_csv, write_image
from result_documents import common
from terminal import on_terminal
from typer.testing import CliRunner

from conftest import Notes, toy_recipe
from idat_zoo import load_plugin, outside
from idat_zoo.cli import app
from idat_zoo.engine.learner import EpochLog
from idat_zoo.errors import DataError, TrainingError, UsageError, ZooError
from idat_zoo.recipe import Recipe
from idat_zoo.registry import get_recipe
from idat_zoo.results import Result
from idat_zoo.runs import workers
from idat_zoo.runs.alike import cut_turns
from idat_zoo.runs.device_setup import set_up
from idat_zoo.runs.folder import run_folder, run_label
from idat_zoo.runs.inputs import Inputs
from idat_zoo.runs.many import run_many
from idat_zoo.runs.plan import plan

IDAT = Path(sys.executable).with_name("idat")
CPU = torch.device("cpu")
TINY = ("--pair", "tiny_random", "--device", "cpu")
LORA = ("train", "--task", "digits,count", "--adapter", "lora", *TINY)
CANDIDATES: dict[str, Any] = {"selection": "val", "candidates": {"lr": (1e-3, 5e-3)}}
DOCS = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
(AFFINE,) = (block for block in BLOCKS if "ADAPTERS = {" in block)
(LEAVES,) = (block for block in BLOCKS if "SUITES = {" in block)
(TASKS,) = re.findall(r"```toml\n# herbarium/tasks\.toml\n(.*?)```", DOCS, re.DOTALL)
BUG = """

def fail(*_, **__):
    raise KeyError("a bug")


for own in ADAPTERS.values():
    own.apply = fail
"""


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty working folder, no variables of a user's own, and no plugin left behind."""
    monkeypatch.chdir(tmp_path)
    for variable in ("IDAT_SHELF", "IDAT_DATA_DIR", "IDAT_DEBUG"):
        monkeypatch.delenv(variable, raising=False)
    yield
    outside.forget()


def short(lr: float = 5e-3, **fields: Any) -> Recipe:
    return toy_recipe(lr=lr, **{"precision": "float32", "epochs": 2} | fields)


def many(
    out: Path | str, recipes: list[Recipe], *, jobs: int = 2, **how: Any
) -> list[Result | ZooError]:
    return run_many([(one, 0) for one in recipes], device="cpu", out=out, jobs=jobs, **how)


def contents(out: Path | str) -> dict[str, Any]:
    """Every file's bytes; of results what is not a time."""
    found: dict[str, Any] = {}
    for path in sorted(Path(out).rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.name == "result.json":
            found[name] = common(path.read_bytes())
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


# The same bytes


@pytest.mark.slow
@pytest.mark.parametrize("stack", [None, pytest.param(2, marks=pytest.mark.system)])
def test_two_processes_write_the_bytes_of_one(stack: int | None) -> None:
    recipes = [short(options={"dropout": 0.1}), short(1e-3), short(2e-3, **CANDIDATES)]
    results = many("two", recipes, stack=stack)
    assert [type(one) for one in results] == [Result] * 3, results
    assert {one.threads for one in results if isinstance(one, Result)} == {1}
    many("one", recipes, stack=stack, jobs=1)
    assert contents("two") == contents("one")
    assert len([name for name in contents("two") if name.endswith("result.json")]) == 3


def test_finished_runs_need_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = [short(epochs=1, warmup_epochs=0), short(1e-3, epochs=1, warmup_epochs=0)]
    first = many("runs", recipes, jobs=1)
    heard = Notes()
    monkeypatch.setattr(workers.subprocess, "Popen", None)
    assert many("runs", recipes, progress=heard) == first
    assert [note.partition(":")[0] for note in heard.notes] == ["finished before"] * 2


def test_one_run_needs_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.subprocess, "Popen", None)
    (result,) = many("runs", [short(epochs=1, warmup_epochs=0)])
    assert isinstance(result, Result)


def test_turns_are_of_the_call_alone_and_not_of_what_is_finished(tmp_path: Path) -> None:
    recipes = [short(lr) for lr in (1e-3, 2e-3, 3e-3, 4e-3, 5e-3)] + [short(batch_size=32)]
    setup, heard = set_up(CPU, stack=2), Notes()
    asked = [(one, 0) for one in recipes]

    def turns() -> list[list[int]]:
        planned = plan(asked, out=tmp_path, device=CPU, inputs=Inputs())
        return cut_turns(planned, range(len(planned)), setup, heard, data_dir=None)

    before = turns()
    assert before == [[0, 1], [2, 3], [4], [5]]
    assert heard.notes == ["5 runs take 3 passes, 2 at most in each"]
    for one in recipes[:3]:
        folder = run_folder(tmp_path, one, 0)
        folder.mkdir(parents=True)
        (folder / "result.json").touch()
    assert turns() == before


# What cannot be


@pytest.mark.parametrize(
    ("device", "jobs", "told"),
    [
        ("cpu", 0, "at least one process"),
        ("cuda", 3, "jobs = 3 takes one device of type cuda each, and there are 2"),
        ("cuda:1", 2, "jobs = 2 takes as many devices, and 'cuda:1' is one of them"),
        ("mps", 2, "jobs = 2 takes one device of type mps each, and there is 1"),
    ],
)
def test_more_processes_than_devices_are_refused(
    device: str, jobs: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match=told):
        set_up(torch.device(device), jobs=jobs)


def test_no_jobs_is_refused_on_the_command_line() -> None:
    words = ["train", "--task", "digits", "--adapter", "lora", *TINY, "--jobs", "0"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "--jobs" in result.stderr


# Faults


class Watching(Notes):
    """Calls back at each epoch of a run, and keeps the labels of runs that failed."""

    def __init__(self, at_epoch: Callable[[int], None] = lambda epoch: None) -> None:
        super().__init__()
        self.failures: list[str] = []
        self._at_epoch = at_epoch

    def epoch(self, logs: "list[EpochLog]") -> None:
        self._at_epoch(logs[0].epoch)

    def failed(self, label: str, error: ZooError) -> None:
        self.failures.append(label)


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_its_run_alone() -> None:
    """It is replaced, and `resume` goes on to the bytes of an undisturbed run."""
    recipes = [short(epochs=30), short(1e-3), short(2e-3)]
    folder = run_folder(Path("runs"), recipes[0], 0)
    killed = list[int]()

    def kill(epoch: int) -> None:
        if not killed and (folder / "log.jsonl").exists():
            killed.append(json.loads((folder / ".owner.json").read_bytes())["pid"])
            os.kill(killed[0], signal.SIGKILL)

    heard = Watching(kill)
    fault, *others = many("runs", recipes, progress=heard)
    assert [type(one) for one in others] == [Result] * 2, others
    assert isinstance(fault, TrainingError)
    assert fault.message == "its worker process was ended by SIGKILL."
    assert "--resume" in fault.hint
    assert heard.failures == [run_label(recipes[0], 0)]
    assert killed[0] != os.getpid()
    (again, *_) = many("runs", recipes, resume=True)
    assert isinstance(again, Result), again
    many("whole", recipes[:1], jobs=1)
    label = run_label(recipes[0], 0)
    assert contents(Path("runs") / label) == contents(Path("whole") / label)


@pytest.mark.slow
def test_images_that_are_missing_end_their_own_run_alone() -> None:
    task = short().task.model_copy(update={"id": "dtd", "suite": "vtab1k", "folder": "dtd"})
    heard = Watching()
    outcomes = many("runs", [short().model_copy(update={"task": task}), short()], progress=heard)
    assert [type(one) for one in outcomes] == [DataError, Result]
    assert len(heard.failures) == 1


@pytest.mark.slow
def test_the_fault_of_one_run_is_told_once_and_the_exit_code_is_3() -> None:
    words = ("--task", "digits", "--adapter", "lora", *TINY, "lr=1e-3,1e30", "epochs=3")
    result = CliRunner().invoke(app, ["train", *words, "--jobs", "2"])
    assert result.exit_code == 3, result.output
    assert result.stdout.count("top-1") == 1
    assert result.stderr.count("seed0 failed:") == 1
    assert result.stderr.count("error: the loss is not finite in epoch ") == 1


@pytest.mark.slow
def test_a_bug_in_a_plugin_ends_its_run_alone_and_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idat_zoo.runs.workers.usable_cores", lambda: 1)
    (tmp_path / "affine.py").write_text(AFFINE + BUG)
    load_plugin(tmp_path / "affine.py")
    heard = Watching()
    fault, fine = many("runs", [toy_recipe("affine"), short()], progress=heard)
    assert isinstance(fine, Result)
    assert isinstance(fault, TrainingError)
    assert fault.message == "its worker process failed: KeyError: 'a bug'"
    assert fault.hint == "The traceback was shown when it happened."
    (trace,) = [note for note in heard.notes if "Traceback" in note]
    assert trace.endswith("KeyError: 'a bug'")
    assert "2 processes share 1 core: fewer may be faster" in heard.notes


@pytest.mark.slow
def test_a_plugin_that_has_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    (tmp_path / "affine.py").write_text(AFFINE)
    load_plugin(tmp_path / "affine.py")
    (tmp_path / "affine.py").write_text(AFFINE + BUG)
    with pytest.raises(UsageError, match=r"changed while runs were trained: .*affine\.py"):
        many("runs", [toy_recipe("affine"), short()])


# Interrupts


def processes_of(group: int) -> list[int]:
    """The process ids of a process group, zombies left out."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


@contextmanager
def training() -> Iterator["subprocess.Popen[str]"]:
    """`idat train` of two runs in a process group of its own, once both have two epochs."""
    with subprocess.Popen(
        [IDAT, *LORA, "epochs=2000", "--jobs", "2"],
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as child:
        try:
            deadline = time.monotonic() + 240
            while sum(log.read_text().count("\n") > 2 for log in Path().rglob("log.jsonl")) < 2:
                assert child.poll() is None, child.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert len(processes_of(child.pid)) == 3
            yield child
        finally:
            for pid in processes_of(child.pid):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_ctrl_c_leaves_no_process_and_keeps_epochs() -> None:
    with training() as child:
        os.killpg(child.pid, signal.SIGINT)
        stdout, stderr = child.communicate(timeout=60)
        assert child.returncode == 130, stderr
        assert stdout == ""
        assert "interrupted; an unfinished training goes on with --resume" in stderr
        assert "Traceback" not in stderr
        assert processes_of(child.pid) == []
    assert len(list(Path().rglob("resume.safetensors"))) == 2
    assert not list(Path().rglob(".owner.json"))  # their folders are unlocked


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.system)]
)
def test_workers_end_with_their_parent(number: signal.Signals) -> None:
    with training() as child:
        os.kill(child.pid, number)
        assert child.wait(timeout=60) == -number
        deadline = time.monotonic() + 60  # a busy machine
        while processes_of(child.pid):
            assert time.monotonic() < deadline, processes_of(child.pid)
            time.sleep(0.1)
    assert not list(Path().rglob(".owner.json"))


# What a worker must be given


SCRIPT = """
import sys
import numpy as np
from idat_zoo import run_many
from idat_zoo.registry import get_recipe

class Pictures:
    def __init__(self, count, seed):
        drawn = np.random.default_rng(seed).integers(256, size=(count, 20, 24, 3))
        self.images = drawn.astype(np.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], i % 3

data = {"train": Pictures(70, 0), "test": Pictures(12, 1)}
words = ["epochs=2", "warmup_epochs=0", "batch_size=16"]
recipe = get_recipe("arrays", "lora", pair="tiny_random", data=data, overrides=words)
jobs, out = int(sys.argv[1]), sys.argv[2]
asked = [(recipe, 0), (recipe, 1)]
for result in run_many(asked, data=data, device="cpu", out=out, jobs=jobs):
    print(result.top1, result.threads)
"""


@pytest.mark.slow
def test_a_script_without_a_guard_trains_on_arrays_in_workers(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    printed = {}
    for jobs in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "script.py", jobs, f"out{jobs}"],
            env=os.environ | {"OMP_NUM_THREADS": jobs},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        printed[jobs] = done.stdout
    assert printed["1"] == printed["2"]
    assert printed["1"].count("\n") == 2
    assert contents("out1") == contents("out2")


def test_arrays_that_change_end_their_runs() -> None:
    class Changing:
        """Images that are other ones once they were read for the recipe and for the call."""

        def __init__(self) -> None:
            self.read = 0

        def __len__(self) -> int:
            return 70

        def __getitem__(self, i: int) -> tuple[Any, int]:
            self.read += 1
            shade = i if self.read <= 2 * len(self) else 200
            return np.full((8, 8, 3), shade, dtype=np.uint8), i % 3

    data = {"train": Changing(), "test": Changing()}
    recipe = get_recipe("arrays", "lora", pair="tiny_random", data=data)
    outcomes = run_many([(recipe, 0), (recipe, 1)], data=data, device="cpu", jobs=2)
    assert [type(one) for one in outcomes] == [DataError, DataError]


@pytest.mark.slow
def test_families_and_suites_of_plugins_are_trained_in_workers(tmp_path: Path) -> None:
    (tmp_path / "affine.py").write_text(AFFINE)
    (tmp_path / "leaves.py").write_text(LEAVES)
    (tmp_path / "herbarium").mkdir()
    (tmp_path / "herbarium" / "tasks.toml").write_text(TASKS)
    rows = [("image", "species", "split")]
    for split, count in (("train", 24), ("val", 6), ("test", 12)):
        for number in range(count):
            species = ("cork", "holm", "red")[number % 3]
            write_image(tmp_path / f"images/oaks/{split}{number}.png", number % 3, 3, seed=number)
            rows.append((f"{split}{number}.png", species, split))
    write_csv(tmp_path / "images/oaks/leaves.csv", rows[1:], rows[0])
    words = ["train", "--plugin", "affine.py", "--plugin", "leaves.py", "--shelf", "herbarium"]
    words += ["--data-dir", "images", "--task", "oaks", "--adapter", "affine,lora", *TINY]
    words += ["epochs=1", "warmup_epochs=0"]
    results = []
    for jobs in ("1", "2"):
        result = CliRunner().invoke(app, [*words, "--jobs", jobs, "--out", f"out{jobs}"])
        assert result.exit_code == 0, result.output
        assert result.stdout.count("top-1") == 2
        results.append(contents(f"out{jobs}"))
    assert results[0] == results[1]


# What a person sees


@pytest.mark.slow
def test_on_a_terminal_each_worker_has_a_line() -> None:
    code, text = on_terminal(*LORA, "epochs=15", "--jobs", "2", columns=80)
    assert code == 0, text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    lines = [line for row in plain.split("\n") for line in row.split("\r")]
    bars = [line.rstrip() for line in lines if re.search(r"run [12] of 2", line)]
    assert all(len(line) <= 80 for line in bars), bars
    both = re.search(
        r"(digits|count) +\S+ +run \d of 2 .*\r*\n\r*(digits|count) +\S+ +run \d", plain
    )
    assert both is not None, plain
    assert both[1] != both[2]
