"""A run that was stopped: it is resumed to the same bits, or refused."""

import functools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toy_runs import Notes, same_but_for_times, stopped_after, trained

from conftest import toy_recipe
from idat_zoo.engine.precision import describe_device, resolve_precision
from idat_zoo.engine.schedule import total_epochs
from idat_zoo.engine.train import Trainer
from idat_zoo.errors import RunFolderError
from idat_zoo.runs.folder import run_folder
from idat_zoo.runs.many import run, run_many


def test_a_finished_run_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(toy_recipe(), device="cpu", out=tmp_path)
    monkeypatch.setattr("idat_zoo.runs.turn.load_run", None)
    assert run(toy_recipe(), device="cpu", out=tmp_path) == first


@pytest.mark.slow
def test_an_unfinished_run_needs_resume_and_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy_recipe(epochs=4, options={"dropout": 0.1})
    whole = trained(recipe, tmp_path / "a")
    folder = stopped_after(2, recipe, tmp_path / "b", monkeypatch)
    with pytest.raises(RunFolderError, match=r"unfinished run[\s\S]*--resume"):
        run(recipe, device="cpu", out=tmp_path / "b")
    with (folder / "log.jsonl").open("a") as log:  # what a crash between two writes leaves
        log.write('{"epoch": 3, "torn')
    run(recipe, device="cpu", out=tmp_path / "b", resume=True)
    assert same_but_for_times(whole, folder)


@pytest.mark.parametrize("selection", ["none", "ensemble"])
def test_a_resumed_run_counts_the_time_of_all_its_processes(
    selection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that advances by 10 s in each epoch of a pass, and by nothing else."""
    now, train_epoch = [0.0], Trainer.train_epoch

    def slowly(self: Trainer, *args: Any) -> Any:
        now[0] += 10
        return train_epoch(self, *args)

    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(Trainer, "train_epoch", slowly)
    monkeypatch.setattr("idat_zoo.runs.passes.time", clock)
    members: dict[str, Any] = {"candidates": {"lr": (1e-3, 5e-3)}} if selection != "none" else {}
    recipe = toy_recipe(epochs=4, selection=selection, **members)
    whole = run(recipe, device="cpu", out=tmp_path / "a")
    assert whole.seconds == 10 * total_epochs(recipe) * (2 if members else 1)
    stopped_after(3, recipe, tmp_path / "b", monkeypatch)
    resumed = run(recipe, device="cpu", out=tmp_path / "b", resume=True)
    assert resumed.seconds == whole.seconds
    assert resumed.images_per_second == whole.images_per_second


@pytest.mark.system
@pytest.mark.parametrize("family", ["lora", "sequential", "idat_adaptformer"])
def test_an_fp16_run_trains_and_goes_on_to_the_same_bits(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler = functools.partial(torch.amp.GradScaler, init_scale=2.0**22)  # first steps are skipped
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    recipe = toy_recipe(family, precision="fp16", epochs=2)
    whole = trained(recipe, tmp_path / "a")
    folder = stopped_after(1, recipe, tmp_path / "b", monkeypatch)
    run(recipe, device="cpu", out=tmp_path / "b", resume=True)
    assert same_but_for_times(whole, folder)
    first, *_ = (whole / "log.jsonl").read_text().splitlines()
    assert json.loads(first)["skipped"] > 2


def test_resuming_on_another_device_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_after(1, toy_recipe(), tmp_path, monkeypatch)
    told = Notes()
    monkeypatch.setattr("idat_zoo.runs.passes.describe_device", lambda device: "cpu: another one")
    run(toy_recipe(), device="cpu", out=tmp_path, resume=True, progress=told)
    here = describe_device(torch.device("cpu"))
    assert told.told == [
        f"trained so far on {here}, and now on cpu: another one: the last bits may differ from "
        "those of a training in one go"
    ]


def test_resuming_on_other_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_after(1, toy_recipe(), tmp_path, monkeypatch)
    monkeypatch.setattr("idat_zoo.data.task_data.TaskData.fingerprint", "0" * 64)
    with pytest.raises(RunFolderError, match="was begun with other data"):
        run(toy_recipe(), device="cpu", out=tmp_path, resume=True)


def test_resuming_on_other_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_after(1, toy_recipe(), tmp_path, monkeypatch)
    monkeypatch.setattr("idat_zoo.backbones.frozen.hash_tensors", lambda tensors: "0" * 64)
    with pytest.raises(RunFolderError, match="was begun with other backbone weights"):
        run(toy_recipe(), device="cpu", out=tmp_path, resume=True)


def test_a_damaged_state_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stopped_after(1, toy_recipe(), tmp_path, monkeypatch)
    (folder / "resume.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(RunFolderError, match="damaged"):
        run(toy_recipe(), device="cpu", out=tmp_path, resume=True)


@pytest.mark.parametrize("content", [None, b"", b'{"epoch": 1}\n', b"\xff\n", b"[1]\n"])
def test_a_damaged_log_beside_a_state_is_refused(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped_after(1, toy_recipe(), tmp_path, monkeypatch)
    log = folder / "log.jsonl"
    if content is None:
        log.unlink()
    else:
        log.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"log\.jsonl' is damaged"):
        run(toy_recipe(), device="cpu", out=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("fields", "apart"),
    [
        ({"epochs": 3}, "epochs = 2 (asked for: 3)"),
        ({"lr": 1e-3}, "lr = 0.005 (asked for: 0.001)"),
        (
            {"options": {"rank": 4}},
            "adapter.rank = None (asked for: 4), teacher_adapter.rank = None (asked for: 4)",
        ),
    ],
)
@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_resume_with_nothing_to_resume_names_the_run_that_was_perhaps_meant(
    fields: dict[str, Any], apart: str, state: str, tmp_path: Path
) -> None:
    run(toy_recipe(), device="cpu", out=tmp_path)
    (before,) = tmp_path.rglob("result.json")
    if state == "unfinished":
        before.unlink()
    told = Notes()
    asked = toy_recipe(**fields)
    run(asked, device="cpu", out=tmp_path, resume=True, progress=told)
    ours = run_folder(tmp_path, resolve_precision(asked, torch.device("cpu")), 0)
    assert told.told == [
        f"nothing to resume in '{ours}', which begins anew; the {state} run in "
        f"'{before.parent}' has {apart}"
    ]


def test_resume_says_nothing_of_runs_that_are_asked_for_or_where_it_was_not_given(
    tmp_path: Path,
) -> None:
    told = Notes()
    asked = [(toy_recipe(), 0), (toy_recipe(lr=1e-3), 0)]
    run_many(asked, device="cpu", out=tmp_path, resume=True, progress=told)
    assert told.told == []
    run(toy_recipe(lr=2e-3), device="cpu", out=tmp_path, progress=told)
    assert told.told == []
