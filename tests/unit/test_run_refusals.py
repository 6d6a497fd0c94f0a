"""What a run refuses in one sentence; what was in its folder stays."""

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_runs import below, trained

from conftest import toy_recipe
from idat_zoo import files
from idat_zoo.engine.precision import resolve_precision
from idat_zoo.errors import DataError, DeviceError, RecipeError, RunFolderError, UsageError
from idat_zoo.evaluation import evaluate
from idat_zoo.runs.folder import run_folder
from idat_zoo.runs.many import run
from idat_zoo.runs.memory_errors import plain_memory_errors


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    folder = trained(toy_recipe(), tmp_path)
    recipe_file = folder / "recipe.toml"
    before = below(folder)
    recipe_file.write_text(recipe_file.read_text().replace("epochs = 2", "epochs = 7"))
    with pytest.raises(RunFolderError, match="holds another run"):
        run(toy_recipe(), device="cpu", out=tmp_path)
    recipe_file.write_bytes(before["recipe.toml"])
    assert below(folder) == before
    with pytest.raises(RunFolderError, match="is itself a run's folder"):
        run(toy_recipe(), device="cpu", out=folder)
    assert below(folder) == before


def test_a_folder_with_foreign_files_is_refused(tmp_path: Path) -> None:
    recipe = toy_recipe(precision="float32")
    folder = run_folder(tmp_path, recipe, 0)
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(RunFolderError, match="is not empty"):
        run(recipe, device="cpu", out=tmp_path)
    assert (folder / "thesis.tex").read_text() == "mine"


def test_what_is_no_recipe_seed_image_or_word_is_refused_in_one_sentence(tmp_path: Path) -> None:
    script = """
import numpy as np
from idat_zoo import adapt, load, run
from idat_zoo.errors import ZooError
from idat_zoo.registry import get_recipe

_, transform = load("builtin:digits-lora")
recipe = get_recipe("digits", "lora")
calls = [
    *(lambda wrong=wrong: run(wrong) for wrong in ("digits", None, {"task": "digits"})),
    *(lambda wrong=wrong: run(recipe, seed=wrong) for wrong in ("0", 1.5, -1, True, None)),
    *(lambda wrong=wrong: adapt(wrong, "lora") for wrong in ("vit_tiny_patch16_224", None)),
    lambda: get_recipe("arrays", "lora", data=["images", "labels"]),
    *(lambda wrong=wrong: transform(wrong) for wrong in ("a.png", np.zeros((3, 4, 3)), None)),
    *(lambda wrong=wrong: get_recipe("dtd", "lora", overrides=wrong) for wrong in (5, [1], {1: 2})),
]
for call in calls:
    try:
        call()
    except ZooError as error:
        print(type(error).__name__)
"""
    command = [sys.executable, "-c", script]  # without the checks of types that tests run under
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["InputError"] * 14 + ["RecipeError"] * 3
    assert not list(tmp_path.iterdir())


def test_no_memory_for_one_image_is_told_no_smaller_batch() -> None:
    with pytest.raises(DeviceError) as caught, plain_memory_errors(toy_recipe(batch_size=1)):
        raise MemoryError
    assert caught.value.hint.startswith("Try a smaller --pair, or --device cpu.")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …"),
    ],
)
def test_out_of_memory_is_one_sentence(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr("idat_zoo.engine.train.Trainer._step", full)
    with pytest.raises(
        DeviceError, match=r"out of memory with batch_size = 64[\s\S]*batch_size=32"
    ):
        run(toy_recipe(), device="cpu", out=tmp_path)


def test_other_runtime_errors_are_not_taken_for_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("idat_zoo.engine.train.Trainer._step", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run(toy_recipe(), device="cpu", out=tmp_path)


def test_a_full_disk_keeps_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.write_whole(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunFolderError, match="No space left on device"):
        files.write_whole(path, b"new")
    assert below(tmp_path) == {"file": b"old"}


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("cuda:99", DeviceError, "there is no device 'cuda:99' here"),
        ("gpu", UsageError, "unknown device 'gpu'"),
        ("meta", UsageError, "unknown device 'meta'"),
        ("cpu:3", DeviceError, "there is no device 'cpu:3' here"),
    ],
)
def test_a_device_that_is_not_there_is_named(
    name: str, error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=re.escape(words)):
        run(toy_recipe(), device=name, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_candidate_is_named(tmp_path: Path) -> None:
    recipe = toy_recipe(selection="val", candidates={"learning_rate": (1e-3,)})
    with pytest.raises(RecipeError, match="learning_rate"):
        run(recipe, device="cpu", out=tmp_path)


def test_a_fault_before_anything_is_written_leaves_no_folder(tmp_path: Path) -> None:
    absent = toy_recipe().task.model_copy(update={"id": "dtd", "suite": "vtab1k", "folder": "dtd"})
    with pytest.raises(DataError):
        run(toy_recipe().model_copy(update={"task": absent}), device="cpu", out=tmp_path / "runs")
    assert not list(tmp_path.iterdir())


def test_an_evaluation_replaces_none_but_another(tmp_path: Path) -> None:
    recipe = resolve_precision(toy_recipe(), torch.device("cpu"))
    run(recipe, out=tmp_path, device="cpu")
    folder = run_folder(tmp_path, recipe, 0)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(RunFolderError, match=r"result\.json' is a run's result"):
        evaluate(folder, device="cpu", out=folder)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "result.json").write_text("{}")
    with pytest.raises(RunFolderError, match="no result of an evaluation"):
        evaluate(folder, device="cpu", out=tmp_path / "theirs")
    for _ in range(2):
        evaluate(folder, device="cpu", out=tmp_path / "own")
