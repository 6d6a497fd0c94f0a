"""A trained LoRA as PEFT writes it, for those who load adapters of timm ViTs with `peft`.

PEFT adapts timm's fused qkv with one A and one B. Updates of q and v alone are that form with their
As one above the other and their Bs in the rows of q and v: nothing is approximated. (With the key,
3R for 2R, and B_k in the rows between.)

    A' = [A_q; A_v]  [2R, D]      B' = [[B_q, 0], [0, 0], [0, B_v]]  [3D, 2R]      alpha' = 2R scale

Shape letters: D width, R rank, K classes.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from idat_zoo import files
from idat_zoo.adapters.lora import ROWS, LoRA
from idat_zoo.backbones.pinned import weights_repo
from idat_zoo.checkpoint import Checkpoint
from idat_zoo.errors import UsageError

TENSORS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
PREFIX = "base_model.model."
EVERY_QKV = r"^blocks\.\d+\.attn\.qkv$"
"""A regular expression: PEFT takes names in a list for ends of names, of other modules too."""


def as_peft(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], dict[str, object]]:
    """PEFT's tensors and its configuration, of which only what is needed is written.

    Raises: UsageError for a family that PEFT has not in this form.
    """
    network, adapter = checkpoint.network, checkpoint.network.adapter
    if not isinstance(adapter, LoRA):
        raise UsageError(
            f"adapter '{adapter.name}' has no form in PEFT; LoRA has.",
            hint="idat_zoo.load loads every adapter.",
        )
    rank = len(adapter.rows) * adapter.options.rank
    tensors: dict[str, Tensor] = {}
    for i in range(network.anatomy.depth):
        own = network.local(i)
        ups = torch.block_diag(*(own[f"{rows}.up.weight"] for rows in adapter.rows))
        parts = dict(zip(adapter.rows, ups.chunk(len(adapter.rows)), strict=True))
        nothing = torch.zeros_like(parts["query"])
        place = f"{PREFIX}blocks.{i}.attn.qkv"
        tensors[f"{place}.lora_A.weight"] = torch.cat(
            [own[f"{rows}.down.weight"] for rows in adapter.rows]
        )
        tensors[f"{place}.lora_B.weight"] = torch.cat([parts.get(rows, nothing) for rows in ROWS])
    for name, parameter in network.head.named_parameters():
        tensors[f"{PREFIX}head.{name}"] = parameter
    config: dict[str, object] = {
        "peft_type": "LORA",
        "auto_mapping": adapted_class(network.backbone.body),
        "base_model_name_or_path": weights_repo(network.backbone.spec) or None,
        "r": rank,
        "lora_alpha": rank * adapter.options.scale,
        "target_modules": EVERY_QKV,
        "modules_to_save": ["head"],
    }
    return tensors, config


def adapted_class(vit: nn.Module) -> dict[str, str]:
    """What PEFT notes of a network that is adapted."""
    return {"base_model_class": type(vit).__name__, "parent_library": type(vit).__module__}


def has_form(checkpoint: Checkpoint) -> bool:
    """Whether PEFT has an adapter in this form."""
    return isinstance(checkpoint.network.adapter, LoRA)


def peft_files(checkpoint: Checkpoint) -> dict[str, bytes]:
    """PEFT's two files by their names. Raises: what `as_peft` raises."""
    tensors, config = as_peft(checkpoint)
    return {TENSORS_FILE: files.dump_tensors(tensors), CONFIG_FILE: files.dump_json(config)}


def write_peft(checkpoint: Checkpoint, folder: Path) -> None:
    """Write both files. Raises: what `as_peft` and `whole_folder` raise."""
    contents = peft_files(checkpoint)
    with files.whole_folder(folder) as place:
        for name, content in contents.items():
            (place / name).write_bytes(content)
