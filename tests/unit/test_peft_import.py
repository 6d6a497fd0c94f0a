"""`idat import`: an adapter that PEFT trained gives PEFT's logits here."""

from pathlib import Path
from typing import Any

import pytest
import torch
from command import idat
from kinds import tiny
from peft_files import BACKBONE, DIGITS, QKV, imported, peft_folder, trained_by_peft

from idat_zoo.adapters.layers import ROWS
from idat_zoo.checkpoint import load_checkpoint, probe_images
from idat_zoo.errors import CheckpointError
from idat_zoo.formats.peft_export import write_peft
from idat_zoo.formats.peft_import import import_peft
from idat_zoo.formats.timm_model import largest_difference, merge


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "tolerance"),
    [
        # Both are computed in float64 from the same float32 numbers, in another order.
        ({"r": 4, "lora_alpha": 4}, 1e-12),
        ({"r": 4, "lora_alpha": 10, "lora_dropout": 0.3}, 1e-12),
        ({"r": 8, "lora_alpha": 3, "use_rslora": True}, 1e-12),
        ({"r": 2, "init_lora_weights": "gaussian", "halves": True}, 1e-12),
        # Unlike scales are multiplied into B, which is kept in float32.
        ({"r": 4, "rank_pattern": {"blocks.1.attn.qkv": 7}}, 1e-6),
        ({"r": 4, "alpha_pattern": {r"blocks\.0\..*": 5}, "use_rslora": True}, 1e-6),
        ({"target_modules": r"blocks\.(0|1)\.attn\.(q|k|v|qkv)"}, 1e-12),
        ({"target_modules": "blocks.[12].attn.qkv", "r": 3}, 1e-12),
        ({"layers_to_transform": [0], "layers_pattern": "blocks"}, 1e-12),
        ({"rank_pattern": {"blocks.[1-9].attn.(qkv|proj)": 7}}, 1e-6),
    ],
    ids=[
        "plain",
        "alpha",
        "rslora",
        "bf16",
        "ranks",
        "alphas",
        "alternation",
        "class",
        "layers",
        "rank-class",
    ],
)
def test_an_adapter_that_peft_trained_gives_the_same_logits(
    config: dict[str, Any], tolerance: float, tmp_path: Path
) -> None:
    images, expected = trained_by_peft(tmp_path / "peft", **config)
    words = ("--backbone", BACKBONE, "--task", "digits", "-o", str(tmp_path / "ours"))
    result = idat("import", str(tmp_path / "peft"), *words)
    assert result.exit_code == 0, result.output
    network = load_checkpoint(tmp_path / "ours").network.double()
    assert network.adapter.options.model_dump()["key"]
    with torch.inference_mode():
        found = network(images)
    largest = expected.abs().max()
    assert (found - expected).abs().max() < tolerance * largest
    frozen = merge(load_checkpoint(tmp_path / "ours").network.double())
    assert largest_difference(network, frozen) < 1e-12
    with torch.no_grad():
        for tensor in network.adapter_tensors.tensors().values():
            tensor.zero_()
        assert (network(images) - expected).abs().max() > 0.01 * largest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "config"),
    [
        ("dinov3", {"target_modules": ["qkv"]}),
        ("siglip", {"target_modules": r"blocks\.\d\.attn\.qkv"}),
        ("swin padded", {"target_modules": ["qkv"]}),
        ("swin padded", {"target_modules": ["0.attn.qkv"], "modules_to_save": ["head.fc"]}),
        ("eva02 base", {"target_modules": ["q_proj", "v_proj"]}),
        ("eva02 base", {"target_modules": ["q_proj", "k_proj"], "lora_alpha": 3}),
    ],
)
def test_so_it_does_on_other_kinds(form: str, config: dict[str, Any], tmp_path: Path) -> None:
    images, expected = trained_by_peft(tmp_path / "peft", backbone=tiny(form), r=4, **config)
    import_peft(tmp_path / "peft", tmp_path / "ours", backbone=tiny(form), task=DIGITS)
    network = load_checkpoint(tmp_path / "ours").network.double()
    with torch.inference_mode():
        found = network(images)
    assert (found - expected).abs().max() < 1e-12 * expected.abs().max()
    write_peft(load_checkpoint(tmp_path / "ours"), tmp_path / "exported")
    import_peft(tmp_path / "exported", tmp_path / "again", backbone=tiny(form), task=DIGITS)
    first, second = (
        (tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("ours", "again")
    )
    assert first == second


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ("beit", "Beit reads the weight of blocks.0.attn.qkv past its module"),
        ("eva02 tiny", "Eva reads the weight of blocks.0.attn.qkv past its module"),
        ("dinov3 qkvb", "Eva reads the weight of blocks.0.attn.qkv past its module"),
        ("swinv2", "SwinTransformerV2 reads the weight of layers.0.blocks.0.attn.qkv past its"),
    ],
)
def test_no_adapter_is_imported_where_peft_trains_another_function_than_it_merges(
    form: str, told: str, tmp_path: Path
) -> None:
    source = peft_folder(tmp_path / "peft")
    with pytest.raises(CheckpointError) as caught:
        import_peft(source, tmp_path / "ours", backbone=tiny(form), task=DIGITS)
    assert f"cannot be imported on backbone '{tiny(form).name}': " in caught.value.message
    assert told in caught.value.message
    assert not (tmp_path / "ours").exists()


def test_layers_of_other_kinds_are_told_by_their_own_names(tmp_path: Path) -> None:
    swin = peft_folder(
        tmp_path / "swin",
        tensors={
            f"base_model.model.layers.{at}.attn.qkv.lora_A.weight": torch.zeros(3, 16)
            for at in ("0.blocks.1", "0.blocks.2", "5.blocks.0")
        },
        target_modules=["layers.0.blocks.0.attn.qkv"],
    )
    with pytest.raises(CheckpointError) as caught:
        import_peft(swin, tmp_path / "ours", backbone=tiny("swin padded"), task=DIGITS)
    assert "it updates attn.qkv of block 0.1, which target_modules=" in caught.value.message
    assert "attn.qkv of blocks 0.2, 5.0; backbone 'swin_padded' has 4 blocks" in (
        caught.value.message
    )
    assert "no LoRA on attn.qkv of block 0.0, which target_modules=" in caught.value.message
    assert "train with modules_to_save=['head.fc']" in caught.value.message


def test_blocks_without_an_update_stay_as_they_are_and_come_back(tmp_path: Path) -> None:
    source = peft_folder(
        tmp_path / "peft",
        target_modules="blocks.[1].attn.qkv",
        tensors={QKV.format(0, "A"): None, QKV.format(0, "B"): None},
    )
    imported(source, tmp_path / "first")
    network = load_checkpoint(tmp_path / "first").network
    assert not any(network.local(0)[f"{rows}.up.weight"].any() for rows in ROWS)
    assert all(network.local(1)[f"{rows}.up.weight"].any() for rows in ROWS)
    write_peft(load_checkpoint(tmp_path / "first"), tmp_path / "exported")
    imported(tmp_path / "exported", tmp_path / "second")
    first, second = (
        (tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("first", "second")
    )
    assert first == second


@pytest.mark.parametrize("key", [False, True])
def test_an_adapter_that_was_exported_comes_back_with_its_own_tensors(
    key: bool, tmp_path: Path
) -> None:
    imported(peft_folder(tmp_path / "peft", key=key), tmp_path / "first")
    write_peft(load_checkpoint(tmp_path / "first"), tmp_path / "exported")
    recipe = imported(tmp_path / "exported", tmp_path / "second")
    assert recipe.adapter.options == {"rank": 3, "scale": 2.0} | ({"key": True} if key else {})
    names = ("adapter_model.safetensors", "config.json")
    for name in names:
        first, second = ((tmp_path / place / name).read_bytes() for place in ("first", "second"))
        assert first == second


def test_an_adapter_that_ships_is_the_same_by_way_of_peft(tmp_path: Path) -> None:
    before = load_checkpoint("builtin:digits-lora")
    write_peft(before, tmp_path / "peft")
    import_peft(tmp_path / "peft", tmp_path / "ours", backbone=before.config.backbone, task=DIGITS)
    after = load_checkpoint(tmp_path / "ours").network
    images = probe_images(after)
    with torch.inference_mode():
        assert after(images).equal(before.network(images))


def test_an_update_of_zeros_is_the_frozen_network(tmp_path: Path) -> None:
    nothing = {QKV.format(block, "B"): torch.zeros(72, 3) for block in range(2)}
    recipe = imported(peft_folder(tmp_path / "peft", tensors=nothing), tmp_path / "ours")
    assert recipe.adapter.options == {"rank": 1, "scale": 2.0}


@pytest.mark.parametrize("alpha", [-6, 0])
def test_a_scale_that_is_not_positive_goes_into_the_tensors(alpha: int, tmp_path: Path) -> None:
    imported(peft_folder(tmp_path / "plus"), tmp_path / "a")
    imported(peft_folder(tmp_path / "other", lora_alpha=alpha), tmp_path / "b")
    plus, other = (load_checkpoint(tmp_path / name).network.local(1) for name in ("a", "b"))
    if alpha:
        assert (plus["scale"] * plus["key.up.weight"]).equal(-other["key.up.weight"])
    else:
        assert not any(up.any() for name, up in other.items() if "up" in name)
