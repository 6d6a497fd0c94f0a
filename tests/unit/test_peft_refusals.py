"""`idat import` refuses what is not the adapter that it was told to be, and says why."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command import idat
from peft_files import BACKBONE, DIGITS, HEAD, QKV, TWELVE, imported, peft_folder, trained_by_peft
from torch import Tensor

from idat_zoo.checkpoint import load_checkpoint
from idat_zoo.errors import CheckpointError
from idat_zoo.formats.peft_export import write_peft
from idat_zoo.formats.peft_import import import_peft


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"peft_type": "POLY"}, "'peft:poly' does not fit a vision network"),
        ({"peft_type": "LOKRA"}, "unknown tuner of PEFT 'lokra'. Did you mean 'lora'"),
        ({"peft_type": "IA3"}, "no base_model.model.blocks.0.attn.qkv.ia3_l"),
        (
            {"peft_type": "IA3"},
            "no place for the tensors base_model.model.blocks.0.attn.qkv.lora_A",
        ),
        ({"bias": "lora_only"}, "no base_model.model.blocks.0.attn.qkv.base_layer.bias"),
        ({"use_dora": True}, "no base_model.model.blocks.0.attn.qkv.lora_magnitude_vector"),
        ({"lora_bias": True}, "no base_model.model.blocks.0.attn.qkv.lora_B.bias"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is set"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is set"),
        ({"kasa_config": {"beta": 1e-4}}, "kasa_config is set, which is not taken over"),
        ({"use_of_tomorrow": True}, "use_of_tomorrow is set, which is not taken over"),
        *(
            ({"init_lora_weights": start}, f"init_lora_weights = '{start}' may change the frozen")
            for start in ("pissa", "olora", "corda", "loftq", "mica")
        ),
        ({"init_lora_weights": "pissa_niter_4"}, "(got 'pissa_niter_4')"),
        ({"r": 0}, "adapter_config.json: r: "),
        ({"r": "3"}, "adapter_config.json: r: "),
        ({"lora_alpha": None}, "adapter_config.json: lora_alpha: "),
        ({"rank_pattern": {"\\": 3}}, r"adapter_config.json: '\\' is no regular expression: "),
        (
            {"alpha_pattern": {"a{99999999999999999999}": 2}},
            "is no regular expression: the repetit",
        ),
        ({"rank_pattern": {"(" * 2000: 2}}, "((((((' is no regular expression: "),
        ({"target_modules": "[qkv"}, "'[qkv' is no regular expression: unterminated character set"),
        ({"exclude_modules": "qkv)"}, "'qkv)' is no regular expression: unbalanced parenthesis"),
        (
            {"layers_to_transform": 0, "layers_pattern": ["blocks", "("]},
            "'(' is no regular expression: missing )",
        ),
        ({"r": 10**400}, "adapter_config.json: r: "),
        ({"target_modules": None}, "adapter_config.json: target_modules"),
        ({"auto_mapping": {"base_model_class": 3}}, "adapter_config.json: auto_mapping.base_mod"),
        (
            {"target_modules": "blocks.0.(attn.(qkv|proj)|mlp.fc1)|blocks.1.attn.qkv"},
            "no base_model.model.blocks.0.attn.proj.lora_A.weight",
        ),
        (
            {"target_modules": "all-linear"},
            "no base_model.model.blocks.0.mlp.fc1.lora_A.weight",
        ),
        (
            {"layers_to_transform": [0]},
            "target_modules=['qkv'], layers_to_transform=[0] means no module of",
        ),
        (
            {"target_modules": "blocks.[1].attn.qkv"},
            "it updates attn.qkv of block 0, which target_modules='blocks.[1].attn.qkv' does not",
        ),
        ({"rank_pattern": {"qkv": 0}}, "adapter_config.json: rank_pattern.qkv: "),
        ({"rank_pattern": {"qkv": 4}}, "lora_A.weight is [3, 24]; expected [4, 24]"),
    ],
)
def test_a_configuration_that_is_not_plain_lora_is_refused(
    config: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError) as caught:
        imported(peft_folder(tmp_path / "peft", **config), tmp_path / "ours")
    assert told in caught.value.message
    assert not (tmp_path / "ours").exists()


OTHERS: dict[str, dict[str, Any]] = {
    "dora": {"r": 4, "lora_alpha": 6, "use_dora": True, "target_modules": ["qkv", "proj"]},
    "lora": {"r": 3, "target_modules": ["qkv", "fc1", "fc2"], "rank_pattern": {"fc1": 5}},
    "lora of all": {"r": 2, "target_modules": "all-linear"},
    "lora of patches": {"r": 2, "target_modules": ["qkv", "proj"]},
    "lora with biases": {"r": 2, "target_modules": ["qkv"], "bias": "lora_only"},
    "pvera": {"r": 8, "target_modules": ["qkv"]},
    "vera": {"r": 8, "target_modules": ["qkv", "fc1"], "d_initial": 0.2},
    "ia3": {"target_modules": ["qkv", "fc2"], "feedforward_modules": ["fc2"]},
    "oft": {"oft_block_size": 4, "target_modules": ["qkv", "fc1"]},
    "lokr": {"r": 4, "target_modules": r"blocks\.1\..*(qkv|fc1)"},
    "loha": {
        "r": 2,
        "target_modules": ["qkv"],
        "layers_to_transform": [1],
        "layers_pattern": "blocks",
    },
    "randlora": {"r": 4, "target_modules": ["qkv", "fc1"]},
    "road": {"group_size": 8, "target_modules": ["attn.proj", "fc1"], "variant": "road_4"},
    "fourierft": {"n_frequency": 20, "target_modules": ["attn.proj"]},
}
"""What PEFT trains, which is not a LoRA of ours."""


def trained_with(tuner: str, folder: Path, **config: Any) -> tuple[Any, Tensor]:
    """A step of the real PEFT, saved in a folder, on which nothing is at its start."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = {"dora": "LORA"}.get(tuner, tuner.partition(" ")[0].upper())
    return trained_by_peft(folder, made_by=PEFT_TYPE_TO_CONFIG_MAPPING[kind], **config)


@pytest.mark.parametrize("tuner", OTHERS)
def test_so_does_any_other_tuner_by_way_of_the_bridge(tuner: str, tmp_path: Path) -> None:
    images, expected = trained_with(tuner, tmp_path / "peft", **OTHERS[tuner])
    recipe = imported(tmp_path / "peft", tmp_path / "ours")
    assert recipe.adapter.name == "peft"
    network = load_checkpoint(tmp_path / "ours").network.double()
    with torch.inference_mode():
        found = network(images)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()


def test_what_could_not_be_checked_is_told(tmp_path: Path) -> None:
    trained_with("vera", tmp_path / "peft", **OTHERS["vera"])
    config = tmp_path / "peft" / "adapter_config.json"
    document = json.loads(config.read_bytes())
    config.write_text(json.dumps(document | {"peft_version": "0.18.0"}))
    words = ("--backbone", BACKBONE, "--task", "digits", "-o", str(tmp_path / "ours"))
    done = idat("import", str(tmp_path / "peft"), *words)
    assert done.exit_code == 0, done.output
    assert f"ours: peft:vera on {BACKBONE} for digits (r 8, " in done.stdout
    notes = [line for line in done.stderr.splitlines() if line.startswith("not checked: ")]
    assert len(notes) == 4  # PEFT notes the class of network, not its weights
    assert "whether PEFT 0.18.0 computed what" in notes[-1]


NOTED = {
    "base_model_class": "VisionTransformer",
    "parent_library": "timm.models.vision_transformer",
}


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (
            {"auto_mapping": {"base_model_class": "Beit", "parent_library": "timm.models.beit"}},
            f"it was trained on a Beit of timm.models.beit; backbone '{BACKBONE}' is a "
            "VisionTransformer of timm.models.vision_transformer",
        ),
        (
            {"auto_mapping": NOTED | {"parent_library": "torchvision.models.vision_transformer"}},
            "a VisionTransformer of torchvision.models.vision_transformer; backbone",
        ),
        (
            {"auto_mapping": NOTED | {"base_model_class": "VisionTransformerDistilled"}},
            "it was trained on a VisionTransformerDistilled of timm.models.vision_transformer; ",
        ),
        (
            {"base_model_name_or_path": "timm/vit_tiny_patch16_224.augreg_in21k"},
            "it was trained on the weights of timm/vit_tiny_patch16_224.augreg_in21k; those of "
            f"backbone '{BACKBONE}' are random",
        ),
        ({"auto_mapping": NOTED, "base_model_name_or_path": "/my/vit"}, ""),
        ({"auto_mapping": None, "base_model_name_or_path": None}, ""),
    ],
)
def test_an_adapter_of_another_network_is_refused(
    config: dict[str, Any], told: str, tmp_path: Path
) -> None:
    source = peft_folder(tmp_path / "peft", **config)
    if not told:
        imported(source, tmp_path / "ours")
        return
    with pytest.raises(CheckpointError) as caught:
        imported(source, tmp_path / "ours")
    assert told in caught.value.message


@pytest.mark.slow
def test_what_peft_writes_of_other_networks_is_refused_by_their_names(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm
        import transformers
        from peft import LoraConfig, get_peft_model

        shape = {"embed_dim": 24, "depth": 2, "num_heads": 3, "patch_size": 8}
        small = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
        networks = {
            "Beit of timm.models.beit": timm.create_model(
                "beit_base_patch16_224", img_size=32, num_classes=10, **shape
            ),
            "VisionTransformerDistilled of timm.models.deit": timm.create_model(
                "deit_tiny_distilled_patch16_224", img_size=32, num_classes=10, **shape
            ),
            "ViTForImageClassification of transformers.models.vit.modeling_vit": (
                transformers.ViTForImageClassification(transformers.ViTConfig(**small))
            ),
        }
        for number, (name, network) in enumerate(networks.items()):
            head = "head" if hasattr(network, "head") else "classifier"
            config = LoraConfig(target_modules=["qkv", "q_proj", "query"], modules_to_save=[head])
            get_peft_model(network, config).save_pretrained(str(tmp_path / str(number)))
            with pytest.raises(CheckpointError, match=f"it was trained on a {name}; backbone"):
                imported(tmp_path / str(number), tmp_path / "ours")


def test_an_adapter_fits_its_own_depth_alone(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"block 2; backbone '{BACKBONE}' has 2 b"):
        imported(peft_folder(tmp_path / "three", depth=3), tmp_path / "ours")
    imported(peft_folder(tmp_path / "two"), tmp_path / "ours")
    write_peft(load_checkpoint(tmp_path / "ours"), tmp_path / "exported")
    for name in ("two", "exported"):
        with pytest.raises(CheckpointError, match=r"no LoRA on attn\.qkv of blocks 2, 3, 4, "):
            import_peft(tmp_path / name, tmp_path / "more", backbone=TWELVE, task=DIGITS)


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({f"{HEAD}bias": None}, "no base_model.model.head.bias: train with modules_to_save"),
        (
            {
                "base_model.model.blocks.0.attn.proj.lora_A.weight": torch.zeros(3, 24),
                "base_model.model.blocks.1.mlp.fc1.lora_B.weight": torch.zeros(96, 3),
            },
            "it updates attn.proj, mlp.fc1; only attn.qkv has a place here",
        ),
        (
            {"base_model.model.norm.weight": torch.zeros(24)},
            "no place for the tensors base_model.model.norm.weight",
        ),
        (
            {QKV.format(1, "A"): None, QKV.format(1, "B"): None},
            "no LoRA on attn.qkv of block 1, which target_modules=['qkv'] means",
        ),
        ({QKV.format(1, "A"): None}, f"no {QKV.format(1, 'A')}"),
        (
            {QKV.format(7, "A"): torch.zeros(3, 24)},
            f"attn.qkv of block 7; backbone '{BACKBONE}'",
        ),
        ({QKV.format(0, "A"): torch.zeros(3, 16)}, "is [3, 16]; expected [3, 24]"),
        ({f"{HEAD}weight": torch.zeros(7, 24)}, "is [7, 24]; expected [10, 24]"),
        ({f"{HEAD}bias": torch.zeros(10, dtype=torch.int8)}, "is int8; expected floats"),
        ({f"{HEAD}bias": torch.full((10,), torch.nan)}, "holds values that are not finite"),
    ],
)
def test_tensors_without_a_place_and_places_without_a_tensor_are_named(
    tensors: dict[str, Tensor | None], told: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError) as caught:
        imported(peft_folder(tmp_path / "peft", tensors=tensors), tmp_path / "ours")
    assert told in caught.value.message


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    source = peft_folder(
        tmp_path / "peft", use_dora=True, alpha_pattern=3, tensors={f"{HEAD}weight": None}, r="3"
    )
    words = ("--backbone", BACKBONE, "--task", "digits", "-o", str(tmp_path / "ours"))
    done = idat("import", str(source), *words)
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert lines[0] == f"error: '{source}' cannot be imported:"
    assert [line.split()[3] for line in lines[1:3]] == ["r:", "alpha_pattern:"]
    assert lines[3].strip().startswith("no base_model.model.head.weight")
    assert lines[4].startswith("hint: What can be: any tuner of PEFT")


def test_another_backbone_is_seen_by_its_width_and_depth(tmp_path: Path) -> None:
    words = ("--backbone", "micro_student", "--task", "digits", "-o", str(tmp_path / "ours"))
    done = idat("import", str(peft_folder(tmp_path / "peft")), *words)
    assert done.exit_code == 1
    told = [line.strip() for line in done.stderr.splitlines()]
    assert told[1:-1] == [
        "no LoRA on attn.qkv of blocks 2, 3, which target_modules=['qkv'] means",
        "base_model.model.head.weight is [10, 24]; expected [10, 128]",
        f"{QKV.format(0, 'A')} is [3, 24]; expected [3, 128]",
        f"{QKV.format(0, 'B')} is [72, 3]; expected [384, 3]",
        f"{QKV.format(1, 'A')} is [3, 24]; expected [3, 128]",
        "and 1 more",
    ]


def test_keys_that_change_nothing_are_ignored(tmp_path: Path) -> None:
    beside = {
        "peft_version": "9.9",
        "inference_mode": True,
        "eva_config": {"rho": 2.0},
        "rank_pattern": None,
        "runtime_config": {"ephemeral_gpu_offload": False},
        "use_of_tomorrow": False,
        "note": "mine",
        "loftq_config": {},
    }
    imported(peft_folder(tmp_path / "peft", **beside), tmp_path / "ours")
    imported(peft_folder(tmp_path / "plain"), tmp_path / "same")
    first, second = (tmp_path / name / "config.json" for name in ("ours", "same"))
    assert first.read_bytes() == second.read_bytes()


def damaged(folder: Path) -> Iterator[tuple[str, str, bytes | None]]:
    """Name of a file, what is told of it, and what stands in it instead (None: nothing)."""
    tensors, config = "adapter_model.safetensors", "adapter_config.json"
    yield tensors, "cannot read", None
    yield tensors, "is damaged or a pickle", b"\x80\x04K."
    yield tensors, "is damaged or a pickle", (folder / tensors).read_bytes()[:-4]
    yield config, "holds no adapter_config.json", None
    yield config, "cannot read", b"{"
    yield config, "expected an object", b"[]"


def test_damaged_files_are_one_sentence(tmp_path: Path) -> None:
    whole = peft_folder(tmp_path / "whole")
    for number, (name, told, content) in enumerate(damaged(whole)):
        source = peft_folder(tmp_path / str(number))
        (source / name).unlink()
        if content is not None:
            (source / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=told):
            imported(source, tmp_path / "ours")


def test_a_pickle_is_not_opened_and_the_way_out_is_told(tmp_path: Path) -> None:
    source = peft_folder(tmp_path / "peft")
    (source / "adapter_model.safetensors").rename(source / "adapter_model.bin")
    with pytest.raises(
        CheckpointError, match=r"adapter_model\.bin, a pickle.*not opened"
    ) as caught:
        imported(source, tmp_path / "ours")
    assert "save_pretrained(DIR) writes safetensors" in caught.value.hint
