"""What must hold on a CUDA device. Run there by benchmarks/on_device.sh; deselected elsewhere."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conftest import DIGITS, FAMILIES, for_both, toy_recipe
from idat_zoo.backbones.pair import Backbones, build_pair
from idat_zoo.checkpoint.loading import load_checkpoint
from idat_zoo.checkpoint.probe import probe_logits
from idat_zoo.data.load import load_task
from idat_zoo.engine.learner import Learner
from idat_zoo.engine.precision import resolve_precision
from idat_zoo.engine.train import Trainer
from idat_zoo.results import Result
from idat_zoo.runs.folder import run_folder
from idat_zoo.runs.many import run, run_many
from idat_zoo.switches import Switches

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_pair_trains_and_its_checkpoint_reloads_on_cpu(
    family: str, precision: str, tmp_path: Path
) -> None:
    recipe = toy_recipe(family, precision=precision, options={"dropout": 0.1})
    result = run(recipe, device="cuda", out=tmp_path)
    assert result.device.startswith("cuda")
    network = load_checkpoint(run_folder(tmp_path, recipe, 0)).network
    assert torch.isfinite(probe_logits(network)).all()


def test_auto_means_bf16_from_compute_capability_8(tmp_path: Path) -> None:
    result = run(toy_recipe(), device="auto", out=tmp_path)
    capable = torch.cuda.get_device_capability() >= (8, 0)
    assert result.recipe.precision == ("bf16" if capable else "fp16")


@pytest.mark.parametrize("family", FAMILIES)
def test_law_without_distillation_the_student_is_as_if_it_had_no_teacher(
    family: str, tmp_path: Path
) -> None:
    beside = run(toy_recipe(family, distillation="none"), device="cuda", out=tmp_path)
    alone = run(toy_recipe(family, teacher=False), device="cuda", out=tmp_path)
    name = "adapter_model.safetensors"
    assert beside.files[name] == alone.files[name]


def test_float32_on_cuda_and_cpu_agree(tmp_path: Path) -> None:
    """The two sum in other orders: after one epoch a few of 797 images may fall the other way."""
    recipe = toy_recipe(precision="float32", epochs=1, warmup_epochs=0)
    top1 = [run(recipe, device=device, out=tmp_path / device).top1 for device in ("cuda", "cpu")]
    assert top1[0] == pytest.approx(top1[1], abs=0.02)


def test_many_runs_go_through_one_pass_by_themselves(tmp_path: Path) -> None:
    recipes = [toy_recipe(lr=lr, options={"dropout": 0.1}) for lr in (1e-3, 3e-3, 5e-3)]
    results = run_many([(recipe, 0) for recipe in recipes], device="cuda", out=tmp_path)
    for result in results:
        assert isinstance(result, Result)
        assert len(result.stack) == 3


def test_a_pass_of_many_and_each_alone_agree(tmp_path: Path) -> None:
    """In float32: sums in other orders, so a few of 797 images may fall the other way."""
    recipes = [toy_recipe(lr=lr, precision="float32") for lr in (1e-3, 3e-3)]
    asked = [(recipe, 0) for recipe in recipes]
    for ours, alone in zip(
        run_many(asked, device="cuda", out=tmp_path / "one"),
        run_many(asked, device="cuda", out=tmp_path / "many", stack=1),
        strict=True,
    ):
        assert isinstance(ours, Result)
        assert isinstance(alone, Result)
        assert ours.top1 == pytest.approx(alone.top1, abs=0.02)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_deterministic_runs_repeat_to_the_bit(precision: str, tmp_path: Path) -> None:
    recipe, switches = toy_recipe(precision=precision), Switches(deterministic=True)
    first, second = (
        run(recipe, device="cuda", out=tmp_path / place, switches=switches) for place in "ab"
    )
    assert first.files == second.files


@pytest.mark.parametrize("count", [1, 3])
def test_the_host_waits_for_the_device_at_the_end_of_an_epoch_alone(count: int) -> None:
    cuda = torch.device("cuda")
    recipes = [
        resolve_precision(toy_recipe(lr=1e-3 * (k + 1), options={"dropout": 0.1}), cuda)
        for k in range(count)
    ]
    split, backbones = load_task(DIGITS, img_size=16).val, Backbones(cuda)
    learners = [
        Learner(
            build_pair(recipe, seed=0, backbones=backbones),
            for_both(split.held),
            split.targets,
            recipe,
            seed=0,
        )
        for recipe in recipes
    ]
    trainer = Trainer(learners)
    assert trainer.fused
    trainer.train_epoch(0)
    steps = iter(range(1, 1 + trainer.steps_per_epoch))

    def watch() -> None:
        last = next(steps) == trainer.steps_per_epoch
        torch.cuda.set_sync_debug_mode("default" if last else "error")

    try:
        trainer.train_epoch(1, watch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_compiled_run_trains(tmp_path: Path) -> None:
    """In a process of its own: what checks shapes under pytest cannot be compiled."""
    code = (
        "from idat_zoo.cli import app; app(['train', '--task', 'digits', '--adapter', 'lora', "
        f"'--pair', 'tiny_random', '--compile', '--out', {str(tmp_path)!r}, 'epochs=2'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch.compile failed" not in done.stderr
