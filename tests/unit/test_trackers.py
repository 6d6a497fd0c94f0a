"""Trackers: what they are fed, and that none changes or ends a run."""

import importlib.util
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from event_files import scalars, texts
from toy_runs import Notes, same_but_for_times, stopped_after, trained

from conftest import toy_recipe
from idat_zoo import load_plugin, outside, run, run_many
from idat_zoo.errors import UnknownNameError, UsageError, ZooError
from idat_zoo.outside import Provider
from idat_zoo.results import Result, load_result
from idat_zoo.runs import tracking
from idat_zoo.specs import Plugin
from idat_zoo.trackers import find_tracker
from idat_zoo.trackers.base import TrackedRun, Tracker

CALLS: list[tuple[str, object]] = []


class Fake(Tracker):
    """Keeps its calls."""

    name = "fake"

    def start(self, run: TrackedRun) -> None:
        self.run = run
        CALLS.append((run.id, ("start", run.label, run.seed, run.config["adapter.name"])))

    def log(self, values: Mapping[str, float]) -> None:
        CALLS.append((self.run.id, ("log", values["epoch"], values["loss"])))

    def finish(self, outcome: Result | ZooError | None) -> None:
        CALLS.append((self.run.id, ("finish", getattr(outcome, "top1", outcome))))


class Failing(Fake):
    """Its server is gone."""

    name = "failing"

    def start(self, run: TrackedRun) -> None:
        raise ConnectionError("no server")


class Hanging(Fake):
    """Its server never answers."""

    name = "hanging"

    def start(self, run: TrackedRun) -> None:
        time.sleep(30)


@pytest.fixture(autouse=True)
def _own_trackers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    CALLS.clear()
    file = Path("trackers_of_tests.py")
    plugin = Plugin(file=file.name, sha256="0" * 64)
    found = {one.name: Provider(one, plugin, file) for one in (Fake, Failing, Hanging)}
    outside.add(outside.TRACKERS_GROUP, found)
    monkeypatch.setattr(tracking, "LAST_SECONDS", 1.0)
    yield
    outside.forget()


def of_runs() -> dict[str, list[object]]:
    runs: dict[str, list[object]] = {}
    for run_id, call in CALLS:
        runs.setdefault(run_id, []).append(call)
    return runs


def test_a_tracked_run_has_the_same_bits_and_three_kinds_of_calls(tmp_path: Path) -> None:
    recipe = toy_recipe()
    plain = trained(recipe, tmp_path / "plain")
    tracked = trained(recipe, tmp_path / "tracked", trackers=["fake"])
    assert same_but_for_times(plain, tracked)
    (calls,) = of_runs().values()
    assert [call[0] for call in calls] == ["start", "log", "log", "finish"]  # type: ignore[index]
    assert isinstance(calls[-1][1], float)  # type: ignore[index]


def test_each_run_of_a_pass_is_tracked_by_itself(tmp_path: Path) -> None:
    asked = [(toy_recipe(), 0), (toy_recipe(), 1)]
    outcomes = run_many(asked, device="cpu", out=tmp_path, trackers=["fake", "fake"], stack=2)
    assert [type(one) for one in outcomes] == [Result, Result]
    found = of_runs()
    assert len(found) == 2
    for calls in found.values():
        assert [call[0] for call in calls] == ["start", "log", "log", "finish"]  # type: ignore[index]


@pytest.mark.slow
def test_each_run_of_worker_processes_is_tracked_by_itself(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    asked = [(toy_recipe(), 0), (toy_recipe(), 1)]
    outside.forget()  # workers would read the plugin of this module's trackers
    outcomes = run_many(asked, device="cpu", out=tmp_path, trackers=["tensorboard"], jobs=2)
    assert [type(one) for one in outcomes] == [Result, Result]
    events = sorted(path.parent.parent.name for path in tmp_path.rglob("events.out.tfevents.*"))
    assert events == ["seed0", "seed1"]


def test_a_resumed_run_is_started_with_the_same_id_and_all_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy_recipe(epochs=3)
    stopped_after(2, recipe, tmp_path, monkeypatch)
    run(recipe, device="cpu", out=tmp_path, resume=True, trackers=["fake"])
    (calls,) = of_runs().values()
    assert [call[1] for call in calls if call[0] == "log"] == [1, 2, 3]  # type: ignore[index]


def test_an_unfinished_run_that_is_not_resumed_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_after(1, toy_recipe(), tmp_path, monkeypatch)
    with pytest.raises(ZooError):
        run(toy_recipe(), device="cpu", out=tmp_path, trackers=["fake"])
    assert CALLS == []


@pytest.mark.parametrize("name", ["failing", "hanging"])
def test_a_tracker_that_fails_or_hangs_warns_once_and_ends_no_run(
    tmp_path: Path, name: str
) -> None:
    notes = Notes()
    asked = [(toy_recipe(), 0), (toy_recipe(), 1)]
    outcomes = run_many(asked, device="cpu", out=tmp_path, trackers=[name, "fake"], progress=notes)
    assert [type(one) for one in outcomes] == [Result, Result]
    assert len([text for text in notes.told if "tracker" in text]) == 1
    assert len(of_runs()) == 2  # the other one is not affected


def test_a_run_that_was_finished_before_is_told(tmp_path: Path) -> None:
    trained(toy_recipe(), tmp_path)
    notes = Notes()
    run(toy_recipe(), device="cpu", out=tmp_path, trackers=["fake"], progress=notes)
    told = "1 run was finished before this command, so nothing of it is sent to 'fake'"
    assert told in notes.told
    assert CALLS == []


def test_stdout_is_not_for_trackers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stdout = sys.stdout

    class Chatty(Fake):
        def start(self, run: TrackedRun) -> None:
            super().start(run)
            print("see your run here")

    file = Path("chatty.py")
    plugin = Plugin(file=file.name, sha256="1" * 64)
    outside.add(outside.TRACKERS_GROUP, {"fake": Provider(Chatty, plugin, file)})
    trained(toy_recipe(), tmp_path, trackers=["fake"])
    printed = capsys.readouterr()
    assert "see your run" in printed.err
    assert printed.out == ""
    assert sys.stdout is stdout


def test_an_unknown_tracker_and_one_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownNameError, match="tensorboard"):
        run(toy_recipe(), device="cpu", out=tmp_path, trackers=["tensorbord"])
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match="not installed") as caught:
        run(toy_recipe(), device="cpu", out=tmp_path, trackers=["mlflow"])
    assert caught.value.hint == "pip install 'idat-zoo[mlflow]'"
    assert not list(tmp_path.iterdir())


def test_tensorboards_event_files_are_read_back_and_no_step_is_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    recipe = toy_recipe(epochs=3)
    begun = stopped_after(2, recipe, tmp_path, monkeypatch)
    tracker = find_tracker("tensorboard")()
    tracker.start(TrackedRun(label="x", recipe=recipe, recipe_hash="0" * 64, seed=0, folder=begun))
    tracker.log({"epoch": 1, "loss": 9.0})  # and it is killed here
    result = run(recipe, device="cpu", out=tmp_path, resume=True, trackers=["tensorboard"])
    found = scalars(begun)
    assert [step for step, _ in found["loss"]] == [1, 2, 3]
    assert found["loss"][0][1] != 9.0
    assert found["top1"][0][1] == pytest.approx(result.top1)
    assert not any("tfevents" in name for name in result.files)


def test_of_an_ensemble_event_files_hold_the_recipe_and_the_result_alone(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    recipe = toy_recipe(selection="ensemble", candidates={"lr": (1e-3, 5e-3)})
    plain = trained(recipe, tmp_path / "plain")
    folder = trained(recipe, tmp_path / "tracked", trackers=["tensorboard"])
    result = load_result(folder / "result.json")
    low, high = result.top1_interval
    ends = {"top1": result.top1, "top1_low": low, "top1_high": high}
    assert scalars(folder) == {name: [(0, float(np.float32(end)))] for name, end in ends.items()}
    told = texts(folder)
    assert told.keys() == {"recipe", "outcome"}
    assert 'selection = "ensemble"' in told["recipe"]
    assert "candidates.lr = [0.001, 0.005]" in told["recipe"]
    assert told["outcome"] == "finished"
    members = sorted(folder.glob("ensemble/*/log.jsonl"))
    assert [len(log.read_text().splitlines()) for log in members] == [2, 2]
    assert [path.parent for path in folder.rglob("*tfevents*")] == [folder / "tensorboard"]
    assert result.files == load_result(plain / "result.json").files


def test_a_tensorboard_folder_that_cannot_be_written_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    recipe = toy_recipe()
    plain = trained(recipe, tmp_path / "plain")
    begun = stopped_after(1, recipe, tmp_path / "runs", monkeypatch)
    (begun / "tensorboard").write_text("a file where the folder belongs")
    notes = Notes()
    words = {"device": "cpu", "out": tmp_path / "runs", "resume": True, "progress": notes}
    run(recipe, **words, trackers=["tensorboard"])  # type: ignore[arg-type]
    assert len([text for text in notes.told if "tracker 'tensorboard'" in text]) == 1
    ours, theirs = (load_result(one / "result.json") for one in (plain, begun))
    assert theirs.top1 == ours.top1
    assert theirs.files == ours.files | {"tensorboard": theirs.files["tensorboard"]}


def test_a_resumed_mlflow_run_goes_on_and_has_each_epoch_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    one = TrackedRun(
        label="x", recipe=toy_recipe(), recipe_hash="0" * 64, seed=0, folder=tmp_path / "run"
    )
    for epochs in (2, 3):
        tracker = find_tracker("mlflow")()
        tracker.start(one)
        for epoch in range(1, epochs + 1):
            tracker.log({"epoch": epoch, "loss": float(epochs)})
        tracker.finish(None)
    client = mlflow.MlflowClient()
    number = client.get_experiment_by_name("idat-zoo").experiment_id
    (stored,) = client.search_runs([number])
    points = client.get_metric_history(stored.info.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(1, 2.0), (2, 2.0), (3, 3.0)]
    assert stored.info.status == "KILLED"


@pytest.mark.parametrize("store", ["", "file:./own"])
def test_where_mlflow_has_no_store_the_warning_names_one_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    mlflow = pytest.importorskip("mlflow")
    if importlib.util.find_spec("sqlalchemy"):
        pytest.skip("this mlflow has its default store")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    notes = Notes()
    trained(toy_recipe(), tmp_path / "runs", trackers=["mlflow"], progress=notes)
    (warning,) = [text for text in notes.told if "mlflow" in text]
    assert warning.startswith("tracker 'mlflow' is left out from here on: this mlflow ")
    assert warning.count("MLFLOW_ALLOW_FILE_STORE=true. The runs are not affected") == 1
    assert (store or "MLFLOW_TRACKING_URI=file:./mlruns") in warning
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    for name, value in re.findall(r"(MLFLOW_\w+)=(true|\S+)", warning):
        monkeypatch.setenv(name, value)
    trained(toy_recipe(), tmp_path / "again", trackers=["mlflow"], progress=notes)
    assert len([text for text in notes.told if "mlflow" in text]) == 1
    client = mlflow.MlflowClient()
    (stored,) = client.search_runs([client.get_experiment_by_name("idat-zoo").experiment_id])
    assert stored.info.status == "FINISHED"
    assert (tmp_path / ("own" if store else "mlruns")).is_dir()


def test_the_tracker_of_the_docs_writes_its_lines(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", docs, re.DOTALL)
    (tmp_path / "plain_text.py").write_text(next(one for one in blocks if "TRACKERS = {" in one))
    load_plugin(tmp_path / "plain_text.py")
    trained(toy_recipe(), tmp_path / "runs", trackers=["plain_text"])
    (written,) = (tmp_path / "runs").rglob("*.txt")
    _, first, second, last = written.read_text().splitlines()
    assert first.startswith("epoch 1: ")
    assert second.startswith("epoch 2: ")
    assert last == "finished"
