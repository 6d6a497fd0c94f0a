"""A trained LoRA as PEFT writes it, for those who load adapters of timm ViTs with `peft`.

PEFT adapts timm's fused qkv with one A and one B. Updates of q and v alone are that form with their
As one above the other and their Bs in the rows of q and v: nothing is approximated.

    A' = [A_q; A_v]  [2R, D]      B' = [[B_q, 0], [0, 0], [0, B_v]]  [3D, 2R]      alpha' = 2R scale

Shape letters: D width, R rank, K classes.
"""

from pathlib import Path

import torch
from torch import Tensor

from idat_zoo import files
from idat_zoo.checkpoint import Checkpoint
from idat_zoo.errors import UsageError

TENSORS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
PREFIX = "base_model.model."


def as_peft(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], dict[str, object]]:
    """PEFT's tensors and its configuration, of which only what is needed is written.

    Raises: UsageError for a family that PEFT has not in this form.
    """
    network = checkpoint.network
    if network.adapter.name != "lora":
        raise UsageError(
            f"adapter '{network.adapter.name}' has no form in PEFT; LoRA has.",
            hint="idat_zoo.load loads every adapter.",
        )
    tensors: dict[str, Tensor] = {}
    rank, scale = 0, 0.0
    for i in range(network.anatomy.depth):
        own = network.local(i)
        up = [own[f"{rows}.up.weight"] for rows in ("query", "value")]
        nothing = torch.zeros_like(up[0])
        rank, scale = 2 * up[0].shape[1], own["scale"].item()
        place = f"{PREFIX}blocks.{i}.attn.qkv"
        tensors[f"{place}.lora_A.weight"] = torch.cat(
            [own[f"{rows}.down.weight"] for rows in ("query", "value")]
        )
        tensors[f"{place}.lora_B.weight"] = torch.cat(
            [
                torch.cat([up[0], nothing], dim=1),
                torch.cat([nothing, nothing], dim=1),
                torch.cat([nothing, up[1]], dim=1),
            ]
        )
    for name, parameter in network.head.named_parameters():
        tensors[f"{PREFIX}head.{name}"] = parameter
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank * scale,
        "target_modules": ["qkv"],
        "modules_to_save": ["head"],
    }
    return tensors, config


def write_peft(checkpoint: Checkpoint, folder: Path) -> None:
    """Write both files. Raises: what `as_peft` and `whole_folder` raise."""
    tensors, config = as_peft(checkpoint)
    with files.whole_folder(folder) as place:
        (place / TENSORS_FILE).write_bytes(files.dump_tensors(tensors))
        (place / CONFIG_FILE).write_bytes(files.dump_json(config))
