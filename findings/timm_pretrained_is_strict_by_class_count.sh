#!/usr/bin/env bash
# Library and version: timm 1.0.31 (torch 2.14.1)
# Behaviour: create_model(pretrained=True) checks a weights file strictly only if num_classes equals the
#   file's. With another number, or 0, a file that lacks a whole block loads; the block keeps its random
#   values, and nothing is raised or warned.
# What one would guess: another number of classes drops the head's tensors, and all others are still
#   checked.
# Seen: (a ViT-Ti file of 10 classes without its last block, by num_classes)
#   10: refused
#   3: loaded, the last block is random
#   0: loaded, the last block is random
# How to run: bash findings/timm_pretrained_is_strict_by_class_count.sh (exit 1: the behaviour changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check timm==1.0.31 torch==2.14.1

cat > "$place/strict.py" <<'PYTHON'
import sys
import warnings

import timm
import torch
from safetensors.torch import save_file

warnings.simplefilter("error")
name, place = "vit_tiny_patch16_224", f"{sys.argv[1]}/part.safetensors"
whole = timm.create_model(name, num_classes=10).state_dict()
save_file({key: value for key, value in whole.items() if "blocks.11." not in key}, place)
for num_classes in (10, 3, 0):
    try:
        model = timm.create_model(
            name,
            pretrained=True,
            num_classes=num_classes,
            pretrained_cfg_overlay={"file": place, "num_classes": 10},
        )
    except RuntimeError:
        print(f"{num_classes}: refused")
        continue
    first = torch.equal(model.blocks[0].attn.qkv.weight, whole["blocks.0.attn.qkv.weight"])
    last = torch.equal(model.blocks[11].attn.qkv.weight, whole["blocks.11.attn.qkv.weight"])
    assert first and not last
    print(f"{num_classes}: loaded, the last block is random")
PYTHON

expected="10: refused
3: loaded, the last block is random
0: loaded, the last block is random"
seen=$("$place/venv/bin/python" "$place/strict.py" "$place")
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
