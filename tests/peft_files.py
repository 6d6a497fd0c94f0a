"""Adapter folders as PEFT writes them, made by hand or by PEFT, for tests of `idat import`."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from idat_zoo.backbones.frozen import load_backbone
from idat_zoo.formats.peft_import import import_peft
from idat_zoo.randomness import generator
from idat_zoo.recipe import Backbone, Recipe
from idat_zoo.registry import load_registry

BACKBONE = "tiny_random_student"  # depth 2, width 24
BASE = load_registry().find_backbone(BACKBONE)
DIGITS = load_registry().find_task("digits")
QKV = "base_model.model.blocks.{}.attn.qkv.lora_{}.weight"
HEAD = "base_model.model.head."


def noise(*shape: int, name: str) -> Tensor:
    return torch.randn(shape, generator=generator(0, "test", name))


def peft_folder(
    folder: Path, *, rank: int = 3, key: bool = True, depth: int = 2, **config: Any
) -> Path:
    """What PEFT would have written, by hand; a tensor's name maps to another, or to None."""
    changes = config.pop("tensors", {})
    tensors = {f"{HEAD}weight": noise(10, 24, name="head"), f"{HEAD}bias": noise(10, name="bias")}
    for block in range(depth):
        tensors[QKV.format(block, "A")] = noise(rank, 24, name=f"A{block}")
        up = noise(72, rank, name=f"B{block}")
        up[24:48] *= key
        tensors[QKV.format(block, "B")] = up
    kept = {name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}
    folder.mkdir()
    save_file(kept, folder / "adapter_model.safetensors")
    written = {"peft_type": "LORA", "r": rank, "lora_alpha": 6, "target_modules": ["qkv"]}
    (folder / "adapter_config.json").write_text(json.dumps(written | config))
    return folder


def imported(source: Path, folder: Path) -> Recipe:
    return import_peft(source, folder, backbone=BASE, task=DIGITS)


def trained_by_peft(
    folder: Path,
    *,
    backbone: Backbone = BASE,
    halves: bool = False,
    made_by: Any = None,
    **config: Any,
) -> tuple[Any, Tensor]:
    """Two steps of AdamW in the real PEFT, saved in a folder: its float64 logits of the probe."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that PEFT imports
        from peft import LoraConfig, get_peft_model

        vit = load_backbone(backbone).body
        vit.reset_classifier(10)
        with torch.random.fork_rng():
            torch.manual_seed(0)  # PEFT draws from the global generator
            torch.nn.init.normal_(vit.get_classifier().weight)
            asked = {"target_modules": ["qkv"], "modules_to_save": ["head"], **config}
            model = get_peft_model(vit, (made_by or LoraConfig)(**asked))
        images = noise(8, 3, backbone.img_size, backbone.img_size, name="images")
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(learning, lr=0.1)
        for _ in range(2):
            optimiser.zero_grad()
            targets = torch.arange(8)
            torch.nn.functional.cross_entropy(model(images), targets).backward()
            optimiser.step()
        if halves:
            with torch.no_grad():
                for parameter in learning:
                    parameter.copy_(parameter.bfloat16())
        model.save_pretrained(str(folder))
        if halves:
            path = folder / "adapter_model.safetensors"
            save_file({n: t.bfloat16() for n, t in load_file(path).items()}, path)
        with torch.inference_mode():
            logits: Tensor = model.double().eval()(images.double())
    return images.double(), logits


TWELVE = BASE.model_copy(update={"name": "twelve", "args": BASE.args | {"depth": 12}})
