"""Runs: what they leave behind, what repeats them to the bit, and what they choose on."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_runs import EVERY_FAMILY, WRITTEN, Notes, below, same_but_for_times, trained

from conftest import TOY_PAIR, toy_recipe
from idat_zoo import files
from idat_zoo.adapters.lora import LoRAOptions
from idat_zoo.backbones.network import Network
from idat_zoo.data.load import load_task
from idat_zoo.recipe_hash import recipe_hash
from idat_zoo.recipe_toml import parse_recipe
from idat_zoo.results import load_result
from idat_zoo.runs.folder import run_folder
from idat_zoo.runs.inputs import Inputs, load_views
from idat_zoo.runs.many import run, run_many


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
