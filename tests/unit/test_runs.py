"""Runs: what they leave behind, what repeats them to the bit, what they refuse."""

import contextlib
import errno
import functools
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conftest import FAMILIES, TOY_PAIR, toy_recipe
from idat_zoo import files
from idat_zoo.adapters.lora import LoRAOptions
from idat_zoo.backbones.network import Network
from idat_zoo.data.load import load_task
from idat_zoo.engine import train as train_module
from idat_zoo.engine.precision import resolve_precision
from idat_zoo.errors import (
    DataError,
    DeviceError,
    DivergedError,
    RecipeError,
    RunFolderError,
    TrainingError,
    UsageError,
)
from idat_zoo.evaluation import evaluate
from idat_zoo.recipe import Recipe
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.recipe_toml import parse_recipe
from idat_zoo.results import load_result
from idat_zoo.runs import lock as run_lock
from idat_zoo.runs.folder import run_folder
from idat_zoo.runs.inputs import Inputs, load_views
from idat_zoo.runs.loaded import LoadedRun
from idat_zoo.runs.lock import holder_of
from idat_zoo.runs.many import run, run_many
from idat_zoo.runs.memory_errors import plain_memory_errors
from idat_zoo.runs.progress import Progress
from idat_zoo.runs.training import Training

WRITTEN = {
    "recipe.toml",
    "log.jsonl",
    "adapter_model.safetensors",
    "config.json",
    "teacher/adapter_model.safetensors",
    "teacher/config.json",
    "predictions.safetensors",
    "probe.safetensors",
    "result.json",
}

EVERY_FAMILY = [
    pytest.param(family, marks=() if family == "lora" else pytest.mark.slow) for family in FAMILIES
]
"""All families, of which `make quick` trains one."""


def below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def same_but_for_times(first: Path, second: Path) -> bool:
    ours, theirs = below(first), below(second)
    documents = [json.loads(contents.pop("result.json")) for contents in (ours, theirs)]
    for document in documents:
        for name in ("seconds", "images_per_second", "finished"):
            del document[name]
    return ours == theirs and documents[0] == documents[1]


def trained(recipe: Recipe, out: Path, **options: object) -> Path:
    run(recipe, device="cpu", out=out, **options)
    return run_folder(out, resolve_precision(recipe, torch.device("cpu")), 0)


def test_a_run_writes_what_it_says(tmp_path: Path) -> None:
    folder = trained(toy_recipe(), tmp_path)
    assert below(folder).keys() == WRITTEN
    result = load_result(folder / "result.json")
    assert result.files.keys() == WRITTEN - {"result.json"}
    assert all(files.sha256(folder / name) == digest for name, digest in result.files.items())
    assert parse_recipe((folder / "recipe.toml").read_text(), where="test") == result.recipe


def test_the_number_is_that_of_the_saved_predictions(tmp_path: Path) -> None:
    folder = trained(toy_recipe(), tmp_path)
    result = load_result(folder / "result.json")
    saved = load_file(folder / "predictions.safetensors")
    data = load_task(result.recipe.task, img_size=16)
    assert saved["target"].equal(data.test.targets)
    assert saved["index"].equal(data.test.index)
    for role, metrics in (("student", result.student), ("teacher", result.teacher)):
        assert metrics is not None
        right = (saved[role].argmax(1) == saved["target"]).double().mean().item()
        assert metrics.top1 == pytest.approx(right, abs=1e-15)
    assert result.top1 == result.student.top1


def test_the_log_has_one_line_per_epoch_and_no_times(tmp_path: Path) -> None:
    folder = trained(toy_recipe(epochs=3), tmp_path)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert all(
        line.keys()
        == {"epoch", "lr", "loss", "student_task_loss", "teacher_task_loss", "distillation_loss"}
        for line in lines
    )
    parts = ("student_task_loss", "teacher_task_loss", "distillation_loss")
    assert lines[0]["loss"] == pytest.approx(sum(lines[0][part] for part in parts), rel=1e-6)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_the_same_command_twice_gives_the_same_bits(family: str, tmp_path: Path) -> None:
    recipe = toy_recipe(family, options={"dropout": 0.1})
    torch.manual_seed(1)
    first = trained(recipe, tmp_path / "a")
    torch.manual_seed(2)
    assert same_but_for_times(first, trained(recipe, tmp_path / "b"))


def test_another_seed_gives_other_bits(tmp_path: Path) -> None:
    first, second = (run(toy_recipe(), device="cpu", out=tmp_path, seed=seed) for seed in (0, 1))
    assert first.files["adapter_model.safetensors"] != second.files["adapter_model.safetensors"]


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_law_without_distillation_the_student_is_as_if_it_had_no_teacher(
    family: str, tmp_path: Path
) -> None:
    options = {"dropout": 0.1}
    beside = trained(toy_recipe(family, distillation="none", options=options), tmp_path)
    alone = trained(toy_recipe(family, teacher=False, options=options), tmp_path)
    assert (beside / "adapter_model.safetensors").read_bytes() == (
        alone / "adapter_model.safetensors"
    ).read_bytes()
    logits = [load_file(f / "predictions.safetensors")["student"] for f in (beside, alone)]
    assert logits[0].equal(logits[1])


@pytest.mark.slow
def test_with_distillation_the_student_is_another(tmp_path: Path) -> None:
    joint = trained(toy_recipe(distillation="mse"), tmp_path)
    alone = trained(toy_recipe(teacher=False), tmp_path)
    names = ("adapter_model.safetensors",)
    assert all((joint / name).read_bytes() != (alone / name).read_bytes() for name in names)


def test_no_two_recipes_share_a_folder() -> None:
    recipes = [
        toy_recipe(),
        toy_recipe(teacher=False),
        toy_recipe(distillation="kl"),
        toy_recipe(distillation="none"),
        toy_recipe(detach="teacher"),
        toy_recipe(lr=1e-3),
        toy_recipe(protocol="paper"),
        toy_recipe(options={"rank": 4}),
        toy_recipe("sequential"),
        toy_recipe(precision="bf16"),
    ]
    hashes = [recipe_hash(recipe) for recipe in recipes]
    assert len(set(hashes)) == len(recipes)


def test_defaults_written_out_and_descriptions_do_not_move_the_hash() -> None:
    plain = toy_recipe()
    described = plain.task.model_copy(update={"licence": "CC0", "title": "Digits"})
    assert recipe_hash(plain) == recipe_hash(plain.model_copy(update={"task": described}))
    explicit = LoRAOptions().model_dump()
    assert recipe_hash(plain) == recipe_hash(toy_recipe(options=explicit))


def test_a_finished_run_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(toy_recipe(), device="cpu", out=tmp_path)
    monkeypatch.setattr("idat_zoo.runs.many.load_run", None)
    assert run(toy_recipe(), device="cpu", out=tmp_path) == first


class StopError(Exception):
    """What stops a run in a test."""


def stopped_after(epochs: int, recipe: Recipe, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that is stopped in the middle of the epoch after `epochs` whole ones."""
    train_epoch = train_module.Trainer.train_epoch

    def stopping(self: train_module.Trainer, epoch: int, *args: object) -> object:
        if epoch == epochs:
            raise StopError
        return train_epoch(self, epoch, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(train_module.Trainer, "train_epoch", stopping)
        with pytest.raises(StopError):
            run(recipe, device="cpu", out=out)
    return run_folder(out, resolve_precision(recipe, torch.device("cpu")), 0)


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


@pytest.mark.slow
def test_val_selection_tries_all_refits_the_best_and_counts(tmp_path: Path) -> None:
    candidates = {"lr": (1e-5, 1e-2), "adapter.rank": (2, 4)}
    result = run(toy_recipe(selection="val", candidates=candidates), device="cpu", out=tmp_path)
    assert result.selection is not None
    tried = result.selection.tried
    assert [candidate.values for candidate in tried] == [
        {"lr": lr, "adapter.rank": rank} for lr in (1e-5, 1e-2) for rank in (2, 4)
    ]
    chosen = tried[result.selection.chosen]
    assert chosen.val_top1 == max(candidate.val_top1 for candidate in tried)
    assert chosen.values["lr"] == 1e-2
    rank = chosen.values["adapter.rank"]
    assert isinstance(rank, int)
    assert result.parameters.adapter == 4 * 2 * 24 * rank


@pytest.mark.slow
def test_val_selection_never_reads_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    predict = Network.forward

    def counting(self: Network, images: torch.Tensor, masks: object = None) -> torch.Tensor:
        if not self.training:
            seen.append(len(images))
        return predict(self, images, masks)  # type: ignore[arg-type]

    monkeypatch.setattr(Network, "forward", counting)
    monkeypatch.setattr("idat_zoo.runs.finish.probe_logits", lambda network: torch.zeros(8, 10))
    recipe = toy_recipe(teacher=False, selection="val", candidates={"lr": (1e-3, 1e-2)})
    run(recipe, device="cpu", out=tmp_path)
    val, test = 1, 4  # batches of 256: 200 images, 797 images
    assert len(seen) == 2 * val + test


@pytest.mark.slow
def test_the_paper_protocol_reports_the_best_epoch_beside_the_last(tmp_path: Path) -> None:
    result = run(toy_recipe(protocol="paper", epochs=2), device="cpu", out=tmp_path)
    (log,) = tmp_path.rglob("log.jsonl")
    top1 = [json.loads(line)["test_top1"] for line in log.read_text().splitlines()]
    assert len(top1) == 12
    assert result.top1_best_on_test == max(top1)
    assert result.top1 == top1[-1]


def test_the_standard_protocol_has_no_best_epoch(tmp_path: Path) -> None:
    assert run(toy_recipe(), device="cpu", out=tmp_path).top1_best_on_test is None


# What goes wrong, told in one sentence; what was there stays.


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not finite in epoch \d+: loss = (nan|inf)"):
        run(toy_recipe(lr=1e30, epochs=4), device="cpu", out=tmp_path)
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize("protocol", ["standard", "paper"])
@pytest.mark.parametrize("field", ["lr", "weight_decay"])
def test_a_last_step_that_breaks_the_network_is_told(
    field: str, protocol: str, tmp_path: Path
) -> None:
    recipe = toy_recipe(**{field: 1e30}, epochs=1, warmup_epochs=0, batch_size=2000)  # one step
    recipe = recipe.model_copy(update={"protocol": protocol})
    with pytest.raises(DivergedError, match="outputs are not finite"):
        run(recipe, device="cpu", out=tmp_path)
    assert not list(tmp_path.rglob("result.json"))


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


def diverging(**fields: object) -> Recipe:
    """A training whose loss is finite and far above that of guessing."""
    return toy_recipe(lr=10.0, epochs=2, warmup_epochs=0, precision="float32", **fields)


def test_a_training_that_diverged_leaves_no_result_and_says_how_to_go_on(tmp_path: Path) -> None:
    recipe = diverging()
    with pytest.raises(DivergedError, match=r"above 2 ln K = 4\.61 \(K = 10") as found:
        run(recipe, device="cpu", out=tmp_path)
    assert "lr=0.001" in found.value.hint
    assert "--keep-diverged" in found.value.hint
    folder = run_folder(tmp_path, recipe, 0)
    assert not (folder / "result.json").exists()
    assert not (folder / "adapter_model.safetensors").exists()


def test_a_training_that_diverged_is_not_repeated_but_kept_where_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = diverging()
    with pytest.raises(DivergedError) as first:
        run(recipe, device="cpu", out=tmp_path)
    monkeypatch.setattr(train_module.Trainer, "train_epoch", None)
    for resume in (False, True):
        with pytest.raises(DivergedError) as again:
            run(recipe, device="cpu", out=tmp_path, resume=resume)
        assert str(again.value) == str(first.value)
    result = run(recipe, device="cpu", out=tmp_path, keep_diverged=True)
    assert result.diverged
    assert "the training diverged" in str(result)
    assert evaluate(run_folder(tmp_path, recipe, 0), device="cpu").diverged
    assert run(recipe, device="cpu", out=tmp_path) == result


def test_a_training_on_noise_has_not_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = torch.Generator().manual_seed(0)
    training = LoadedRun.training

    def shuffled(self: LoadedRun, split: str, recipe: Recipe | None = None) -> Training:
        found = training(self, split, recipe)
        order = torch.randperm(len(found.targets), generator=source)
        return replace(found, targets=found.targets[order])

    monkeypatch.setattr(LoadedRun, "training", shuffled)
    assert not run(toy_recipe(epochs=1, drop_path=0.5), device="cpu", out=tmp_path).diverged


@pytest.mark.parametrize("rate", [10.0, 1e30])
def test_a_candidate_that_diverged_loses(rate: float, tmp_path: Path) -> None:
    recipe = toy_recipe(teacher=False, selection="val", candidates={"lr": (rate, 1e-2)})
    result = run(recipe, device="cpu", out=tmp_path)
    assert result.selection is not None
    assert result.selection.chosen == 1
    assert [one.diverged for one in result.selection.tried] == [True, False]


@pytest.mark.parametrize(
    ("lr", "lower"), [(1e30, "lr=0.001"), (10.0, "lr=0.001"), (0.002, "lr=0.0002")]
)
def test_the_lower_learning_rate_that_is_named_is_a_sane_one(
    lr: float, lower: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idat_zoo.engine.train._is_finite", lambda value: False)
    with pytest.raises(DivergedError) as caught:
        run(toy_recipe(lr=lr), device="cpu", out=tmp_path)
    assert caught.value.hint == f"A lower learning rate often helps: {lower}"


def test_no_memory_for_one_image_is_told_no_smaller_batch() -> None:
    with pytest.raises(DeviceError) as caught, plain_memory_errors(toy_recipe(batch_size=1)):
        raise MemoryError
    assert caught.value.hint.startswith("Try a smaller --pair, or --device cpu.")


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


def test_an_adapter_that_gets_no_gradient_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idat_zoo.adapters.lora.LoRA.apply", lambda *args, **more: args[4])
    with pytest.raises(TrainingError, match=r"8 of 10 trainable tensors got no gradient"):
        run(toy_recipe(teacher=False), device="cpu", out=tmp_path)


class Notes(Progress):
    """Keeps what a run has to say."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_slow_precision_is_said_once_before_its_runs_and_moves_no_bit(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy_recipe(precision=precision)
    timed = []

    def take(ratio: float) -> None:
        timed.clear()
        monkeypatch.setattr(
            "idat_zoo.engine.timing.times_as_long", lambda *asked: timed.append(asked) or ratio
        )

    take(0.5)
    heard = Notes()
    fast = trained(recipe, tmp_path / "fast", progress=heard)
    assert (heard.told, timed) == ([], [(precision, torch.device("cpu"))])
    take(8.0)
    run_many([(recipe, 0), (recipe, 1)], device="cpu", out=tmp_path / "slow", progress=heard)
    (told,) = heard.told
    assert told.startswith(f"precision={precision} is slow here: a small product takes 8.0 times")
    assert told.endswith("; precision=float32 is the better choice")
    assert same_but_for_times(fast, run_folder(tmp_path / "slow", recipe, 0))
    take(8.0)
    run(recipe, device="cpu", out=tmp_path / "slow")  # finished before
    run(toy_recipe(), device="cpu", out=tmp_path / "plain")
    assert timed == []


def test_fewer_images_than_a_batch_are_named_and_trained_on(tmp_path: Path) -> None:
    heard = Notes()
    result = run(toy_recipe(batch_size=2000), device="cpu", out=tmp_path, progress=heard)
    assert heard.told == ["batches hold 1000 images instead of 2000: there are no more to train on"]
    assert result.recipe.batch_size == 2000


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


def test_a_teacher_of_another_input_size_sees_the_task_at_its_own(tmp_path: Path) -> None:
    assert TOY_PAIR.teacher is not None
    larger = TOY_PAIR.teacher.model_copy(update={"img_size": 32})
    pair = TOY_PAIR.model_copy(update={"teacher": larger})
    recipe = toy_recipe().model_copy(update={"pair": pair})
    views = load_views(recipe, Inputs(), seed=0)
    shapes = {role: data.train.images[:1].shape for role, data in views.items()}
    assert shapes == {"student": (1, 3, 16, 16), "teacher": (1, 3, 32, 32)}
    result = run(recipe, device="cpu", out=tmp_path)
    assert result.teacher is not None
    assert result.data_fingerprint == views["student"].fingerprint


def test_an_unknown_candidate_is_named(tmp_path: Path) -> None:
    recipe = toy_recipe(selection="val", candidates={"learning_rate": (1e-3,)})
    with pytest.raises(RecipeError, match="learning_rate"):
        run(recipe, device="cpu", out=tmp_path)


# One process in a folder at a time


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import toy_recipe
from idat_zoo.engine.train import Trainer
from idat_zoo.runs.many import run

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
