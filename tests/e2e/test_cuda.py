"""What must hold on a CUDA device. Run there by benchmarks/on_device.sh; deselected elsewhere."""

from pathlib import Path

import pytest
import torch

from conftest import FAMILIES, toy_recipe
from idat_zoo.checkpoint import load_checkpoint, probe_logits
from idat_zoo.run_folder import run_folder
from idat_zoo.runs import run

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
