#!/usr/bin/env bash
# Library and version: peft 0.21.2 (timm 1.0.31, torch 2.14.1)
# Behaviour: PeftModel.from_pretrained() loads a LoRA of a ViT of 3 blocks into one of 2 blocks, and into
#   a BEiT of 3, without a warning. Tensors that have no place are dropped; the class of network that
#   save_pretrained() notes in adapter_config.json (auto_mapping) is not compared.
# What one would guess: a warning at least, as there is where an adapter of 3 blocks is loaded into 4.
# Seen:
#   noted: VisionTransformer
#   3 blocks into 3: 0 warnings, 6 of 6 tensors loaded
#   3 blocks into 2: 0 warnings, 4 of 6 tensors loaded
#   3 blocks into 4: 1 warnings, 6 of 6 tensors loaded
#   ViT into Beit: 0 warnings, 6 of 6 tensors loaded
# How to run: bash findings/peft_adapter_of_another_network_loads_silently.sh (exit 1: the behaviour changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check peft==0.21.2 timm==1.0.31 torch==2.14.1

cat > "$place/load.py" <<'PYTHON'
import json
import sys
import warnings
from pathlib import Path

import timm
import torch
from peft import LoraConfig, PeftModel, get_peft_model

folder = sys.argv[1]


def network(name, depth):
    shape = {"embed_dim": 24, "num_heads": 3, "patch_size": 8, "img_size": 32}
    return timm.create_model(name, pretrained=False, num_classes=5, depth=depth, **shape)


def lora(model):
    return {name: tensor for name, tensor in model.named_parameters() if "lora_" in name}


trained = get_peft_model(
    network("vit_tiny_patch16_224", 3), LoraConfig(target_modules=["qkv"], r=2)
)
for tensor in lora(trained).values():
    torch.nn.init.normal_(tensor)
trained.save_pretrained(folder)
config = json.loads((Path(folder) / "adapter_config.json").read_text())
print("noted:", config["auto_mapping"]["base_model_class"])

for label, name, depth in (
    ("3 blocks into 3", "vit_tiny_patch16_224", 3),
    ("3 blocks into 2", "vit_tiny_patch16_224", 2),
    ("3 blocks into 4", "vit_tiny_patch16_224", 4),
    ("ViT into Beit", "beit_base_patch16_224", 3),
):
    other = network(name, depth)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = lora(PeftModel.from_pretrained(other, folder))
    equal = sum(n in loaded and t.equal(loaded[n]) for n, t in lora(trained).items())
    print(f"{label}: {len(caught)} warnings, {equal} of {len(lora(trained))} tensors loaded")
PYTHON

expected="noted: VisionTransformer
3 blocks into 3: 0 warnings, 6 of 6 tensors loaded
3 blocks into 2: 0 warnings, 4 of 6 tensors loaded
3 blocks into 4: 1 warnings, 6 of 6 tensors loaded
ViT into Beit: 0 warnings, 6 of 6 tensors loaded"
seen=$("$place/venv/bin/python" "$place/load.py" "$place/adapter")
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
