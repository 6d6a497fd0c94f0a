"""The modules, ranks and scales that a PEFT configuration means, held to PEFT's own choice."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft_files import DIGITS, TWELVE, imported, peft_folder

from idat_zoo.adapters import peft_targets
from idat_zoo.adapters.peft_targets import PeftConfig, Update, find_updates
from idat_zoo.backbones.frozen import load_backbone
from idat_zoo.checkpoint import load_checkpoint
from idat_zoo.errors import CheckpointError
from idat_zoo.formats.peft_export import write_peft
from idat_zoo.formats.peft_import import import_peft


def adapted_by_peft(vit: Any, adapt: Callable[[Any], Any]) -> dict[str, Update]:
    """The modules that `adapt` gave a LoRA, with rank and scale."""
    model = adapt(vit)
    return {
        name.removeprefix("base_model.model."): Update(
            rank=module.r["default"], scale=module.scaling["default"]
        )
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["qkv"]},
        {"target_modules": ["blocks.1.attn.qkv", "kv"]},
        {"target_modules": ["1.attn.qkv", "mlp.fc1"]},
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.(qkv|proj)"},
        {"target_modules": r"blocks\.1\.attn\.qkv"},
        {"target_modules": "blocks.[12].attn.qkv"},
        {"target_modules": r"(?!.*\.1\d?\.).*(?:qkv|fc[12])"},
        {"target_modules": r"(?i)BLOCKS\.(1|11)\.ATTN\.QKV"},
        {"target_modules": ["qkv"], "exclude_modules": ["1.attn.qkv"]},
        {"target_modules": ["qkv", "fc1"], "exclude_modules": r".*1\.attn.*|.*fc1"},
        {"target_modules": ["qkv"], "layers_to_transform": 1, "layers_pattern": "blocks"},
        {
            "target_modules": ["qkv", "blocks.5.mlp.fc1"],
            "layers_to_transform": [1, 11],
            "layers_pattern": ["layers", "bl[ao]cks"],
        },
        {
            "target_modules": ["qkv"],
            "rank_pattern": {"1.attn.qkv": 2, r"blocks\.1\d.*": 3, "blocks.(1|2).attn.qkv": 5},
            "alpha_pattern": {"^blocks.0.attn.qkv": 7, "qkv": 9, ".*": 11},
            "use_rslora": True,
        },
    ],
)
def test_modules_ranks_and_scales_are_those_that_peft_chooses(config: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import LoraConfig, get_peft_model

        vit = load_backbone(TWELVE).body
        modules = {n: isinstance(m, torch.nn.Linear) for n, m in vit.named_modules() if n}
        found = find_updates(PeftConfig.model_validate(config), modules)
        assert found == adapted_by_peft(vit, lambda vit: get_peft_model(vit, LoraConfig(**config)))


@pytest.mark.slow
def test_peft_adapts_the_exported_modules_and_no_other(tmp_path: Path) -> None:
    source = peft_folder(tmp_path / "peft", depth=12, target_modules=r"blocks\.\d+\.attn\.qkv")
    import_peft(source, tmp_path / "ours", backbone=TWELVE, task=DIGITS)
    write_peft(load_checkpoint(tmp_path / "ours"), tmp_path / "exported")
    vit = load_backbone(TWELVE).body
    vit.reset_classifier(10)
    vit.x = torch.nn.ModuleDict({"blocks": copy.deepcopy(vit.blocks)})
    vit.qkv = torch.nn.Linear(24, 72)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import PeftModel

        adapted = adapted_by_peft(
            vit, lambda vit: PeftModel.from_pretrained(vit, str(tmp_path / "exported"))
        )
    assert adapted.keys() == {f"blocks.{block}.attn.qkv" for block in range(12)}


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["target_modules", "rank_pattern", "layers_pattern"])
def test_patterns_that_take_too_long_are_stopped(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peft_targets, "PATIENCE", 0.5)
    monkeypatch.setattr(peft_targets, "MATCHER", "import time; time.sleep(60)")
    config: dict[str, Any] = {pattern: {"qkv": 2} if pattern == "rank_pattern" else "qkv"}
    source = peft_folder(tmp_path / "peft", **{"layers_to_transform": 0} | config)
    with pytest.raises(CheckpointError, match=r"matching .* takes longer than 0\.5 seconds"):
        imported(source, tmp_path / "ours")
